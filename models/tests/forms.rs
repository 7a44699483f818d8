//! The graphs for devices: what they are made of, as far as that shows without a device.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary")]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use models::checkpoint::F32Layout;
use models::config::ModelConfig;
use models::graph::{self, Cuda, CudaCache, Elements, Form, Operators, Trt};
use models::names;
use models::onnx::proto::{
    DimensionValue, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};
use models::onnx::{DataType, weight_inputs};
use prost::Message;
use serde_json::Value;
use tests::Fixtures;

const SLOTS: usize = 96;
const CANDIDATES: usize = 32;

/// What TensorRT's parser takes of the operators in use: `docs/operators.md` of onnx-tensorrt, release 10.15. Element types
/// are those of the first input (of `Where`, the second).
const TENSORRT: &[(&str, &[&str])] = &[
    ("Add", NUMBERS),
    ("Attention", FLOATS),
    ("Cast", ANY),
    ("Concat", ANY),
    ("Cos", FLOATS),
    ("CumSum", FLOATS),
    ("Div", NUMBERS),
    ("Exp", FLOATS),
    ("Expand", ANY),
    ("Gather", ANY),
    ("GatherElements", ANY),
    ("Gelu", NUMBERS),
    ("Gemm", FLOATS),
    ("GreaterOrEqual", NUMBERS),
    ("Less", NUMBERS),
    ("LessOrEqual", NUMBERS),
    ("Log", FLOATS),
    ("MatMul", FLOATS),
    ("Max", NUMBERS),
    ("Mul", NUMBERS),
    ("ReduceMax", NUMBERS),
    ("ReduceSum", NUMBERS),
    ("Reshape", ANY),
    ("RMSNormalization", FLOATS),
    ("RotaryEmbedding", FLOATS),
    ("Shape", ANY),
    ("Sigmoid", FLOATS),
    ("Sin", FLOATS),
    ("Softmax", FLOATS),
    ("Split", ANY),
    ("Sub", NUMBERS),
    ("TensorScatter", &["FLOAT", "BFLOAT16", "INT32"]),
    ("TopK", NUMBERS),
    ("Transpose", ANY),
    ("Unsqueeze", ANY),
    ("Where", ANY),
];
const FLOATS: &[&str] = &["FLOAT", "BFLOAT16"];
const NUMBERS: &[&str] = &["FLOAT", "BFLOAT16", "INT32", "INT64"];
const ANY: &[&str] = &["FLOAT", "BFLOAT16", "INT32", "INT64", "BOOL"];

fn trt(elements: Elements, operators: Operators, candidates: Option<usize>) -> Form {
    Form::Trt(Trt {
        elements,
        operators,
        slots: SLOTS,
        candidates,
    })
}

fn trt_forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for elements in [Elements::F32, Elements::Bf16] {
        for operators in [Operators::Native, Operators::Decomposed] {
            for candidates in [None, Some(CANDIDATES)] {
                forms.push(trt(elements, operators, candidates));
            }
        }
    }
    forms
}

fn cuda_forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for elements in [Elements::F32, Elements::Bf16] {
        for cache in [CudaCache::Blocks, CudaCache::Rows] {
            for candidates in [None, Some(CANDIDATES)] {
                forms.push(Form::Cuda(Cuda {
                    elements,
                    cache,
                    candidates,
                }));
            }
        }
    }
    forms
}

/// Calls `test` with the decoder and the vision tower of every set of fixtures in each of the forms.
fn each(forms: &[Form], test: impl Fn(&str, Form, &[u8], &ModelConfig)) {
    Fixtures::each(|fixtures| {
        let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
        let layout = F32Layout::new(&names::tensors(&config));
        for &form in forms {
            let decoder = graph::decoder(&config, &layout, form).unwrap();
            test("decoder", form, &decoder, &config);
            let vision = graph::vision(&config, &layout, form).unwrap();
            test("vision", form, &vision, &config);
        }
    })
    .unwrap();
}

fn decode(bytes: &[u8]) -> (ModelProto, GraphProto) {
    let model = ModelProto::decode(bytes).unwrap();
    let graph = model.graph.clone().unwrap();
    (model, graph)
}

/// An attribute that is a number.
fn int(node: &NodeProto, name: &str) -> Option<i64> {
    let attribute = node.attribute.iter().find(|it| it.name() == name)?;
    Some(attribute.i())
}

/// Constants of a graph, by name.
fn constants(graph: &GraphProto) -> HashMap<&str, &TensorProto> {
    let all = graph.initializer.iter();
    all.map(|tensor| (tensor.name(), tensor)).collect()
}

#[test]
fn trt_graphs_hold_nothing_that_tensorrt_does_not_parse() {
    each(&trt_forms(), |name, form, bytes, config| {
        let (model, graph) = decode(bytes);
        let opsets: Vec<_> = model.opset_import.iter().collect();
        assert_eq!(opsets.len(), 1, "{name} {form:?}");
        let expected = if name == "decoder" {
            (24, 12)
        } else {
            (23, 11)
        };
        let versions = (opsets[0].version(), model.ir_version());
        assert_eq!((opsets[0].domain(), versions), ("", expected), "{name}");
        let constants = constants(&graph);
        assert!(
            graph
                .initializer
                .iter()
                .all(|it| it.external_data.is_empty())
        );
        for node in &graph.node {
            let what = format!("{name} {form:?}: {}", node.name());
            check_node(node, &constants, &what);
        }
        if name == "decoder" {
            check_cache(&graph, config);
        }
        let is_decomposed =
            matches!(form, Form::Trt(trt) if trt.operators == Operators::Decomposed);
        let count = |op: &str| {
            graph
                .node
                .iter()
                .filter(|node| node.op_type() == op)
                .count()
        };
        let layers = if name == "decoder" {
            config.text.num_layers
        } else {
            config.vision.depth
        };
        let whole = if is_decomposed { 0 } else { layers };
        assert_eq!(count("Attention"), whole, "{name}");
        assert_eq!(count("RotaryEmbedding"), 2 * whole, "{name}");
        assert_eq!(count("Softmax"), layers - whole, "{name}");
    });
}

/// The restrictions of the same table that show in a node itself.
fn check_node(node: &NodeProto, constants: &HashMap<&str, &TensorProto>, what: &str) {
    let op = node.op_type();
    let listed = |(name, _): &&(&str, &[&str])| *name == op;
    let mut rows = TENSORRT.iter();
    assert!(
        node.domain().is_empty() && rows.find(listed).is_some(),
        "{what}"
    );
    let constant = |index: usize| {
        let name: &str = node.input.get(index).unwrap();
        *constants
            .get(name)
            .unwrap_or_else(|| panic!("{what}: `{name}` is not constant"))
    };
    match op {
        "Attention" => {
            assert!(node.input.len() <= 4 && node.output.len() == 1, "{what}");
            let names: Vec<_> = node.attribute.iter().map(|it| it.name()).collect();
            assert_eq!(names, ["scale"], "{what}");
        }
        // Cosines and sines of each token: no position_ids, which would have to be INT64.
        "RotaryEmbedding" => assert_eq!(node.input.len(), 3, "{what}"),
        "TensorScatter" => assert_eq!(int(node, "axis"), Some(-2), "{what}"),
        "TopK" => {
            assert_eq!(int(node, "sorted"), Some(1), "{what}");
            let count = constant(1).raw_data();
            let count = i64::from_le_bytes(count.try_into().unwrap());
            assert!((1..3840).contains(&count), "{what}: {count}");
        }
        "ReduceMax" | "ReduceSum" | "CumSum" | "Unsqueeze" => {
            constant(1);
        }
        _ => {}
    }
}

/// TensorRT updates a cache where it lies only if it is an input and an output, of fixed slots.
fn check_cache(graph: &GraphProto, config: &ModelConfig) {
    let scatters = graph
        .node
        .iter()
        .filter(|it| it.op_type() == "TensorScatter");
    let mut found = 0;
    for (index, node) in scatters.enumerate() {
        let (layer, kind) = (index / 2, ["key", "value"][index % 2]);
        assert_eq!(node.input[0], format!("past_{kind}.{layer}"));
        assert_eq!(node.output[0], format!("present_{kind}.{layer}"));
        for (infos, name) in [
            (&graph.input, &node.input[0]),
            (&graph.output, &node.output[0]),
        ] {
            let info = infos
                .iter()
                .find(|info| info.name() == name.as_str())
                .unwrap();
            let text = &config.text;
            let fixed = [
                None,
                Some(text.num_kv_heads),
                Some(SLOTS),
                Some(text.head_dim),
            ];
            assert_eq!(sizes(info), fixed, "{name}");
        }
        found += 1;
    }
    assert_eq!(found, 2 * config.text.num_layers);
}

fn sizes(info: &ValueInfoProto) -> Vec<Option<usize>> {
    let tensor = info.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
    let dims = tensor.shape.as_ref().unwrap().dim.iter();
    let size = |dim: &models::onnx::proto::DimensionProto| match dim.value {
        Some(DimensionValue::Size(size)) => usize::try_from(size).ok(),
        _ => None,
    };
    dims.map(size).collect()
}

#[test]
fn weights_of_device_graphs_are_inputs_that_say_where_they_lie() {
    let forms = [trt_forms(), cuda_forms()].concat();
    each(&forms, |name, form, bytes, config| {
        let specs = names::tensors(config);
        let layout = F32Layout::new(&specs);
        let weights = weight_inputs(bytes).unwrap();
        let elements = DataType::from(elements(form));
        let mut covered = HashSet::new();
        let mut wide = 0;
        for weight in &weights {
            assert_eq!(weight.location, graph::WEIGHTS_FILE);
            let published = weight.name.strip_suffix(".f32");
            let is_wide = published.is_some() && elements != DataType::Float;
            wide += usize::from(is_wide);
            let expected = if is_wide { DataType::Float } else { elements };
            assert_eq!(weight.data_type, expected, "{name}: {}", weight.name);
            let mut offset = weight.offset;
            for part in published.unwrap_or(&weight.name).split('+') {
                assert_eq!(layout.offset(part), Some(offset), "{name}: {part}");
                let spec = specs.iter().find(|spec| spec.name == part).unwrap();
                offset += spec.shape.iter().product::<usize>() * size_of::<f32>();
                covered.insert(part.to_owned());
            }
            assert_eq!(
                offset,
                weight.offset + weight.length,
                "{name}: {}",
                weight.name
            );
        }
        let is_vision = |name: &str| name.starts_with("visual.");
        for spec in specs {
            let is_own = is_vision(&spec.name) == (name == "vision");
            assert_eq!(
                covered.contains(&spec.name),
                is_own,
                "{name}: {}",
                spec.name
            );
        }
        // The final norm and the head, where the rest is narrower.
        let is_narrow = name == "decoder" && elements != DataType::Float;
        assert_eq!(wide, if is_narrow { 2 } else { 0 }, "{name} {form:?}");
    });
}

#[test]
fn sizes_that_no_device_takes_are_refused() {
    let fixtures = Fixtures::open().unwrap();
    let mut config = ModelConfig::from_dir(&fixtures.model()).unwrap();
    let layout = F32Layout::new(&names::tensors(&config));
    for candidates in [0, graph::head::MAX_CANDIDATES] {
        let form = trt(Elements::Bf16, Operators::Native, Some(candidates));
        let error = graph::decoder(&config, &layout, form).unwrap_err();
        assert!(error.to_string().contains("takes 1 to 3839"), "{error}");
    }
    config.text.head_dim = 20;
    config.text.mrope_section = [2, 4, 4];
    let layout = F32Layout::new(&names::tensors(&config));
    for form in cuda_forms() {
        let error = graph::decoder(&config, &layout, form).unwrap_err();
        assert!(error.to_string().contains("head dim 20"), "{error}");
    }
}

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
fn device_graphs_pass_the_onnx_checker_with_types_that_tensorrt_and_onnx_runtime_take() {
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
        println!("skipped: no python3 with `onnx`");
        return;
    };
    let written = written.into_inner();
    assert_eq!(graphs.len(), written.len());
    for (name, form) in &written {
        let graph = &graphs[name];
        if matches!(form, Form::Trt(_)) {
            check_types(name, graph["nodes"].as_array().unwrap());
        }
        if let Some(said) = graph["runtime"].as_str() {
            check_runtime(name, *form, said);
        }
    }
}

fn check_types(name: &str, nodes: &[Value]) {
    for node in nodes {
        let op = node[0].as_str().unwrap();
        let inputs = node[1].as_array().unwrap();
        let mut rows = TENSORRT.iter();
        let (_, types) = rows.find(|(listed, _)| *listed == op).unwrap();
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

fn elements(form: Form) -> Elements {
    match form {
        Form::Trt(Trt { elements, .. }) | Form::Cuda(Cuda { elements, .. }) => elements,
        Form::Portable | Form::Engine => unreachable!("not for a device"),
    }
}
