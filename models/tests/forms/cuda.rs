//! What ONNX Runtime's CUDA provider computes, and that graphs for it hold nothing else: a node that it lacks would go to
//! the CPU, which has nothing in bf16.

use models::graph::{CudaCache, Form};

use super::{cuda_forms, decode, each};

/// `docs/OperatorKernels.md` of ONNX Runtime, CUDAExecutionProvider, with the operator set of these graphs. Element types are
/// those of the first input (of `Where`, the second).
pub(super) const CUDA: &[(&str, &[&str])] = &[
    ("Add", NUMBERS),
    ("Attention", FLOATS),
    ("Cast", ANY),
    ("Concat", ANY),
    ("Cos", &["FLOAT"]),
    ("CumSum", COMPARED),
    ("Div", NUMBERS),
    ("Exp", FLOATS),
    ("Expand", ANY),
    ("Gather", ANY),
    ("GatherElements", ANY),
    ("Gelu", FLOATS),
    ("Gemm", FLOATS),
    ("GreaterOrEqual", COMPARED),
    ("GroupQueryAttention", &["BFLOAT16"]),
    ("Less", COMPARED),
    ("Log", &["FLOAT"]),
    ("Max", NUMBERS),
    ("Mul", NUMBERS),
    ("PagedAttention", &["BFLOAT16"]),
    ("ReduceMax", COMPARED),
    ("ReduceSum", NUMBERS),
    ("Reshape", ANY),
    ("RMSNormalization", FLOATS),
    ("RotaryEmbedding", FLOATS),
    ("Shape", ANY),
    ("Sigmoid", FLOATS),
    ("Sin", &["FLOAT"]),
    ("Split", ANY),
    ("Sub", NUMBERS),
    ("TopK", COMPARED),
    ("Transpose", ANY),
    ("Unsqueeze", ANY),
    ("Where", NUMBERS),
];
const FLOATS: &[&str] = &["FLOAT", "BFLOAT16"];
const COMPARED: &[&str] = &["FLOAT", "INT32", "INT64"];
const NUMBERS: &[&str] = &["FLOAT", "BFLOAT16", "INT32", "INT64"];
const ANY: &[&str] = &["FLOAT", "BFLOAT16", "INT32", "INT64", "BOOL"];

#[test]
fn cuda_graphs_have_one_cached_attention_a_layer_and_no_newer_operators_than_their_kernels() {
    each(&cuda_forms(), |name, form, bytes, config| {
        let (model, graph) = decode(bytes);
        for opset in &model.opset_import {
            // TopK of set 24 has no kernel.
            let expected = if opset.domain().is_empty() { 23 } else { 1 };
            assert_eq!(opset.version(), expected, "{name} {form:?}: {opset:?}");
        }
        let Form::Cuda(cuda) = form else {
            unreachable!("not for CUDA");
        };
        let (cached, other) = match cuda.cache {
            CudaCache::Blocks => ("PagedAttention", "GroupQueryAttention"),
            CudaCache::Rows => ("GroupQueryAttention", "PagedAttention"),
        };
        let nodes = &graph.node;
        let count = |op: &str| nodes.iter().filter(|node| node.op_type() == op).count();
        let layers = if name == "decoder" {
            config.text.num_layers
        } else {
            0
        };
        assert_eq!(
            (count(cached), count(other)),
            (layers, 0),
            "{name} {form:?}"
        );
        for node in nodes
            .iter()
            .filter(|node| node.op_type() == "PagedAttention")
        {
            // The places of slot_mapping and attention_metadata; what is between is left out.
            assert_eq!(node.input.len(), 17, "{}", node.name());
            assert_eq!(node.input[10], "slot_mapping");
            assert_eq!(node.input[16], "attention_metadata");
            let left_out = |index: &usize| node.input[*index].is_empty();
            assert!([8, 9, 11, 12, 13, 14, 15].iter().all(left_out));
        }
    });
}
