//! What TensorRT parses, and that graphs for it hold nothing else.

use std::collections::HashMap;

use models::config::ModelConfig;
use models::graph::{Form, Operators};
use models::onnx::proto::{
    DimensionProto, DimensionValue, GraphProto, NodeProto, TensorProto, ValueInfoProto,
};

use super::{SLOTS, decode, each, trt_forms};

/// What TensorRT's parser takes of the operators in use: `docs/operators.md` of onnx-tensorrt, release 10.15. Element types
/// are those of the first input (of `Where`, the second).
pub(super) const TENSORRT: &[(&str, &[&str])] = &[
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
    let size = |dim: &DimensionProto| match dim.value {
        Some(DimensionValue::Size(size)) => usize::try_from(size).ok(),
        _ => None,
    };
    dims.map(size).collect()
}
