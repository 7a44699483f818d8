//! What the ONNX checker and a plain ONNX Runtime say of the graphs, where Python has them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use models::graph::{CudaCache, Elements, Form};
use serde_json::Value;

use super::cuda::CUDA;
use super::tensorrt::TENSORRT;
use super::{cuda_forms, each, elements, trt_forms};

/// Checks the graphs of a folder and tells, one line of JSON a graph, what each node is given and what ONNX Runtime says
/// when it opens the graph on the CPU: `{"nodes": [[op, [[type, rank], ...]], ...], "runtime": ""}`, a type of "" for an
/// input that is left out.
const CHECKER: &str = r#"
import glob, json, sys
try:
    import onnx
except ImportError:
    sys.exit(3)
try:
    import onnxruntime
    onnxruntime.set_default_logger_severity(4)
except ImportError:
    onnxruntime = None
def opened(path):
    if onnxruntime is None:
        return None
    try:
        onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
        return ''
    except Exception as error:
        return str(error)
for path in sorted(glob.glob(sys.argv[1] + '/*.onnx')):
    model = onnx.load(path)
    onnx.checker.check_model(path, full_check=True)
    # What ONNX Runtime's own operators give is not known to ONNX: it is of the type of the embeddings.
    for node in model.graph.node:
        if node.domain:
            embeds = next(i for i in model.graph.input if i.name == 'image_embeds')
            kind = embeds.type.tensor_type.elem_type
            given = onnx.helper.make_tensor_value_info(node.output[0], kind, None)
            model.graph.value_info.append(given)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {'': ['', 0]}
    name = onnx.TensorProto.DataType.Name
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor = value.type.tensor_type
        types[value.name] = [name(tensor.elem_type), len(tensor.shape.dim)]
    for tensor in graph.initializer:
        types[tensor.name] = [name(tensor.data_type), len(tensor.dims)]
    nodes = [[node.op_type, [types.get(i) for i in node.input]] for node in graph.node]
    print(json.dumps({'path': path, 'nodes': nodes, 'runtime': opened(path)}))
"#;

/// What the checker says of graphs in `folder`, by file name; `None` without it.
fn checked(folder: &Path) -> Option<BTreeMap<String, Value>> {
    let python = std::env::var_os("ONNX_CHECKER_PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(&python)
        .args(["-c", CHECKER])
        .arg(folder)
        .output();
    let output = output.ok()?;
    if output.status.code() == Some(3) {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let graphs = lines.lines().map(|line| {
        let graph: Value = serde_json::from_str(line).unwrap();
        let path = Path::new(graph["path"].as_str().unwrap());
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, graph)
    });
    Some(graphs.collect())
}

#[test]
fn device_graphs_pass_the_onnx_checker_and_have_types_that_their_runtimes_take() {
    let folder = tempfile::tempdir().unwrap();
    let written = RefCell::new(BTreeMap::new());
    each(
        &[trt_forms(), cuda_forms()].concat(),
        |name, form, bytes, _| {
            let mut written = written.borrow_mut();
            let stem = format!("{name}.{}", written.len());
            std::fs::write(folder.path().join(format!("{stem}.onnx")), bytes).unwrap();
            written.insert(stem, form);
        },
    );
    let Some(graphs) = checked(folder.path()) else {
        assert!(
            std::env::var_os("ONNX_CHECKER_PYTHON").is_none(),
            "ONNX_CHECKER_PYTHON has no `onnx`"
        );
        println!("skipped: no python3 with `onnx`");
        return;
    };
    let written = written.into_inner();
    assert_eq!(graphs.len(), written.len());
    for (name, form) in &written {
        let graph = &graphs[name];
        let nodes = graph["nodes"].as_array().unwrap();
        match (form, elements(*form)) {
            (Form::Trt(_), _) => check_types(name, nodes, TENSORRT),
            // What is for CUDA in f32 is there for tests on the CPU.
            (_, Elements::Bf16) => check_types(name, nodes, CUDA),
            (_, Elements::F32) => {}
        }
        if let Some(said) = graph["runtime"].as_str() {
            check_runtime(name, *form, said);
        }
    }
}

fn check_types(name: &str, nodes: &[Value], table: &[(&str, &[&str])]) {
    for node in nodes {
        let op = node[0].as_str().unwrap();
        let inputs = node[1].as_array().unwrap();
        let row = table.iter().find(|(listed, _)| *listed == op);
        let (_, types) = row.unwrap_or_else(|| panic!("{name}: {op}"));
        let first = &inputs[usize::from(op == "Where")];
        let data_type = first[0].as_str().unwrap();
        assert!(types.contains(&data_type), "{name}: {op} of {data_type}");
        let heads = match op {
            "Attention" => inputs.len(), // the mask too
            "TensorScatter" => 2,
            _ => 0,
        };
        for input in &inputs[..heads] {
            assert_eq!(input[1], 4, "{name}: {op}: {input}");
        }
    }
}

/// ONNX Runtime checks a graph against its own definitions of the operators before it looks for code to run them: of the
/// graphs that the CPU cannot run it must miss nothing but that.
fn check_runtime(name: &str, form: Form, said: &str) {
    let is_paged = matches!(form, Form::Cuda(cuda) if cuda.cache == CudaCache::Blocks);
    match elements(form) {
        Elements::Bf16 => {
            let missed = "Could not find an implementation";
            assert!(said.contains(missed), "{name} {form:?}: {said}");
        }
        Elements::F32 if is_paged && name.starts_with("decoder") => {
            let refused = "(PagedAttention)"; // it takes 16 bits alone
            assert!(said.contains(refused), "{name} {form:?}: {said}");
        }
        Elements::F32 => assert_eq!(said, "", "{name} {form:?}"),
    }
}
