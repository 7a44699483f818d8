//! Which provider took a graph: TensorRT must have all of it, in one piece, CUDA all but sums over shapes.
#![allow(
    unsafe_code,
    reason = "`ort` does not wrap what ONNX Runtime says of its partitions"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};

use ort::session::Session;
use ort::{AsPointer, api, sys};

use super::runtime::runtime;
use crate::error::{Error, Result};

const CONTEXT: &str = "asking which provider runs the graph";

/// The session option without which ONNX Runtime does not remember.
pub(super) const RECORD: &str = "session.record_ep_graph_assignment_info";

/// What the providers call themselves.
const TENSORRT: &str = "TensorrtExecutionProvider";
const CUDA: &str = "CUDAExecutionProvider";

/// Operators of a few numbers that say how large a tensor is: ONNX Runtime leaves them to the CPU on purpose.
const OF_SHAPES: [&str; 7] = [
    "Shape",
    "Concat",
    "Gather",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Cast",
];

/// Neighbouring nodes that one provider runs as one.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    provider: String,
    /// Types of its nodes' operators.
    operators: Vec<String>,
}

/// Checks that TensorRT runs all of `what`, which was opened with [`RECORD`], as one engine.
pub(super) fn check_is_one_engine(session: &Session, what: &'static str) -> Result<()> {
    match complaint(&parts(session)?) {
        None => Ok(()),
        Some(found) => Err(Error::Fragmented {
            engine: "trt",
            what,
            found: format!("{found}, where it must be one engine"),
            remedy: "TensorRT 10.15 and 10.16 have all the operators: try --trt-attention decomposed, or another --engine",
        }),
    }
}

/// Checks that CUDA runs all of `what`, which was opened with [`RECORD`], that is more than a shape.
pub(super) fn check_is_on_cuda(session: &Session, what: &'static str) -> Result<()> {
    let left = left_by(CUDA, &parts(session)?, &OF_SHAPES);
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::Fragmented {
        engine: "cuda",
        what,
        found: format!("CUDA leaves {}", left.join(", ")),
        remedy: "ONNX Runtime 1.31 for GPUs has all the operators; or use another --engine",
    })
}

/// What is wrong with these parts, if anything.
fn complaint(parts: &[Part]) -> Option<String> {
    let num_ours = parts
        .iter()
        .filter(|part| part.provider == TENSORRT)
        .count();
    if num_ours == 1 && parts.len() == 1 {
        return None;
    }
    let left = left_by(TENSORRT, parts, &[]);
    let parts = match num_ours {
        0 => "none of it".to_owned(),
        1 => "one part".to_owned(),
        count => format!("{count} parts"),
    };
    let left = if left.is_empty() {
        String::new()
    } else {
        format!(" and leaves {}", left.join(", "))
    };
    Some(format!("TensorRT takes {parts}{left}"))
}

/// What `provider` does not run, the operators that do not count left out: `2 Attention to CUDA`.
fn left_by(provider: &str, parts: &[Part], uncounted: &[&str]) -> Vec<String> {
    let others = parts.iter().filter(|part| part.provider != provider);
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for part in others {
        let short = part.provider.trim_end_matches("ExecutionProvider");
        for operator in &part.operators {
            if !uncounted.contains(&operator.as_str()) {
                *counts.entry((operator, short)).or_default() += 1;
            }
        }
    }
    counts
        .iter()
        .map(|((operator, provider), count)| format!("{count} {operator} to {provider}"))
        .collect()
}

/// The parts of a session's graph.
fn parts(session: &Session) -> Result<Vec<Part>> {
    let (mut subgraphs, mut count) = (std::ptr::null(), 0);
    // SAFETY: a valid session; ONNX Runtime writes an array that lives as long as it.
    let status = unsafe {
        (api().Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut subgraphs, &raw mut count)
    };
    done(status)?;
    // SAFETY: so many pointers, which ONNX Runtime has just written.
    let subgraphs = unsafe { slice(subgraphs, count) };
    subgraphs.iter().map(|&subgraph| part(subgraph)).collect()
}

fn part(subgraph: *const sys::OrtEpAssignedSubgraph) -> Result<Part> {
    let mut provider = std::ptr::null();
    // SAFETY: one of the session's subgraphs; ONNX Runtime writes a string that lives as long as it.
    done(unsafe { (api().EpAssignedSubgraph_GetEpName)(subgraph, &raw mut provider) })?;
    let (mut nodes, mut count) = (std::ptr::null(), 0);
    // SAFETY: as above.
    let status =
        unsafe { (api().EpAssignedSubgraph_GetNodes)(subgraph, &raw mut nodes, &raw mut count) };
    done(status)?;
    // SAFETY: so many pointers, which ONNX Runtime has just written.
    let nodes = unsafe { slice(nodes, count) };
    let operator = |&node: &*const sys::OrtEpAssignedNode| {
        let mut operator = std::ptr::null();
        // SAFETY: one of the session's nodes.
        done(unsafe { (api().EpAssignedNode_GetOperatorType)(node, &raw mut operator) })?;
        // SAFETY: a string of ONNX Runtime's.
        Ok(unsafe { text(operator) })
    };
    Ok(Part {
        // SAFETY: a string of ONNX Runtime's.
        provider: unsafe { text(provider) },
        operators: nodes.iter().map(operator).collect::<Result<_>>()?,
    })
}

fn done(status: sys::OrtStatusPtr) -> Result<()> {
    // SAFETY: the status comes from ONNX Runtime and is handed over once.
    unsafe { ort::Error::result_from_status(status) }.map_err(runtime(CONTEXT))
}

/// # Safety
/// Null with a count of 0, or so many values that outlive the slice.
unsafe fn slice<'a, T>(values: *const T, count: usize) -> &'a [T] {
    if values.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(values, count) }
}

/// # Safety
/// Null or a string that ends with a zero.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use models::onnx::{DataType, Graph};

    use super::*;
    use crate::engine::session::runtime::environment;

    fn part(provider: &str, operators: &[&str]) -> Part {
        Part {
            provider: provider.to_owned(),
            operators: operators.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn one_engine_of_everything_is_right() {
        let whole = part(TENSORRT, &["Gemm", "Attention"]);
        assert_eq!(complaint(&[whole]), None);
    }

    #[test]
    fn what_tensorrt_leaves_is_named_and_counted() {
        let cuda = CUDA;
        let parts = [
            part(TENSORRT, &["Gemm"]),
            part(cuda, &["Attention"]),
            part(TENSORRT, &["Gemm", "Mul"]),
            part(cuda, &["Attention", "TopK"]),
        ];
        assert_eq!(
            complaint(&parts).unwrap(),
            "TensorRT takes 2 parts and leaves 2 Attention to CUDA, 1 TopK to CUDA"
        );
        assert_eq!(complaint(&parts[..1]), None);
        assert_eq!(
            complaint(&[part("CPUExecutionProvider", &["Add"])]).unwrap(),
            "TensorRT takes none of it and leaves 1 Add to CPU"
        );
        assert_eq!(complaint(&[]).unwrap(), "TensorRT takes none of it");
    }

    #[test]
    fn cuda_may_leave_shapes_to_the_cpu() {
        let cpu = "CPUExecutionProvider";
        let parts = [part(CUDA, &["Gemm"]), part(cpu, &["Shape", "Concat"])];
        assert!(left_by(CUDA, &parts, &OF_SHAPES).is_empty());
        let parts = [part(CUDA, &["Gemm"]), part(cpu, &["Concat", "TopK"])];
        assert_eq!(left_by(CUDA, &parts, &OF_SHAPES), ["1 TopK to CPU"]);
    }

    /// On the CPU: as far as the real library goes.
    #[test]
    fn a_graph_that_tensorrt_did_not_take_is_refused() {
        let mut graph = Graph::new("sum", "");
        let shape = [2.into()];
        let x = graph.input("x", DataType::Float, &shape);
        let sum = graph.add(&x, &x);
        graph.give(&sum, "sum", DataType::Float, &shape);
        let builder = Session::builder(environment().unwrap()).unwrap();
        let mut builder = builder.with_config_entry(RECORD, "1").unwrap();
        let session = builder.commit_from_memory(&graph.into_bytes()).unwrap();
        let expected = part("CPUExecutionProvider", &["Add"]);
        assert_eq!(parts(&session).unwrap(), [expected]);
        let error = check_is_on_cuda(&session, "decode")
            .unwrap_err()
            .to_string();
        assert!(error.contains("CUDA leaves 1 Add to CPU"), "{error}");
        let error = check_is_one_engine(&session, "decode").unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("none of it and leaves 1 Add to CPU"),
            "{error}"
        );
        assert!(error.contains("--trt-attention"), "{error}");
    }
}
