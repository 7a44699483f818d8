//! The device's head: what sampling and scoring need of a row of logits, so that a step moves kilobytes to the host.
//!
//! `// R rows of logits, V vocab, C candidates, N banned ids`
//!
//! | input | type | |
//! |---|---|---|
//! | `temperature` | f32 `[1]` | above 0; logits are divided by it |
//! | `nucleus_p` | f32 `[1]` | mass of the nucleus, below 1 |
//! | `chosen` | i64 `[R]` | the token of each row to score; 0 where there is none |
//! | `banned` | i64 `[N]` | tokens that may not be drawn, at least one, each once: padding of the vocabulary too |
//!
//! | output | type | |
//! |---|---|---|
//! | `log_totals` | f32 `[R]` | ln of the sum of `exp((logit - largest) / temperature)`: log-sum-exp without the largest |
//! | `chosen_logprobs` | f32 `[R]` | log-probability of `chosen`, in nats |
//! | `entropies` | f32 `[R]` | entropy of the whole distribution, in nats |
//! | `banned_masses` | f32 `[R]` | probability of the banned tokens together |
//! | `candidate_ids` | i32 `[R, C]` | the C likeliest tokens, likeliest first |
//! | `candidate_logits` | f32 `[R, C]` | their logits, as they are; the first is the largest |
//! | `candidate_masses` | f32 `[R]` | their probability together |
//! | `nucleus_sizes` | i32 `[R]` | tokens of the nucleus |
//! | `nucleus_masses` | f32 `[R]` | their probability together |
//! | `nucleus_entropies` | f32 `[R]` | entropy of the nucleus, its probabilities as they are, in nats |
//! | `renormalised_entropies` | f32 `[R]` | the same with its probabilities divided by their sum |
//!
//! Everything is of softmax(logits / temperature) over the whole vocabulary, before bans, as the sampler defines it. What is
//! said of the nucleus is true where the candidates weigh as much: `candidate_masses >= nucleus_p`. Where they are lighter
//! the nucleus is wider than the candidates, and the host fetches the row from `logits`, which stays on the device until
//! then. So does a draw that falls beyond the candidates: of `1 - banned_masses` that may be drawn, what the allowed
//! candidates leave.
//!
//! Log-sum-exp is written out, as TensorRT's ReduceLogSumExp does not subtract the largest first.

use crate::error::{Error, Result};
use crate::onnx::ops::Reduction;
use crate::onnx::{DataType, Graph, Value};

/// TensorRT's TopK takes fewer.
pub const MAX_CANDIDATES: usize = 3840;

/// The head alone, with `logits` f32 `[R, V]` as an input.
pub fn build(vocab_size: usize, candidates: usize) -> Result<Vec<u8>> {
    let mut graph = Graph::new("head", "");
    let shape = ["logit_rows".into(), vocab_size.into()];
    let logits = graph.input("logits", DataType::Float, &shape);
    statistics(&mut graph, &logits, vocab_size, candidates)?;
    Ok(graph.into_bytes())
}

/// Declares the inputs and outputs above for `logits` f32 `[R, V]`.
pub fn statistics(
    graph: &mut Graph,
    logits: &Value,
    vocab_size: usize,
    candidates: usize,
) -> Result<()> {
    if candidates == 0 || candidates >= MAX_CANDIDATES {
        return Err(Error::Graph(format!(
            "{candidates} candidates per row: TensorRT takes 1 to {}",
            MAX_CANDIDATES - 1
        )));
    }
    let candidates = candidates.min(vocab_size);
    let rows = ["logit_rows".into()];
    let temperature = graph.input("temperature", DataType::Float, &[1.into()]);
    let nucleus_p = graph.input("nucleus_p", DataType::Float, &[1.into()]);
    let chosen = graph.input("chosen", DataType::Int64, &rows);
    let banned = graph.input("banned", DataType::Int64, &["banned_ids".into()]);

    graph.scope("statistics");
    let largest = graph.reduce_last(Reduction::Max, logits); // [R, 1]
    let depths = depths(graph, logits, &largest, &temperature); // [R, V]
    let weights = graph.exp(&depths);
    let total = graph.reduce_last(Reduction::Sum, &weights); // [R, 1]
    let log_total = graph.log(&total);

    // - sum of pi log pi, with log pi = depth - log total.
    let moments = graph.mul(&weights, &depths);
    let moment = graph.reduce_last(Reduction::Sum, &moments); // [R, 1]
    let mean_depth = graph.div(&moment, &total);
    let entropy = graph.sub(&log_total, &mean_depth);

    let chosen = graph.unsqueeze(&chosen, &[-1]); // [R, 1]
    let chosen_depth = graph.gather_elements(&depths, &chosen);
    let chosen_logprob = graph.sub(&chosen_depth, &log_total);

    let banned_weights = graph.gather_along(&weights, &banned, 1); // [R, N]
    let banned_weight = graph.reduce_last(Reduction::Sum, &banned_weights);
    let banned_mass = graph.div(&banned_weight, &total);

    let [top_logits, top_ids] = graph.top_k(logits, candidates); // [R, C]
    let shape = ["logit_rows".into(), candidates.into()];
    let top_logits = graph.give(&top_logits, "candidate_logits", DataType::Float, &shape);
    let top_ids = graph.cast(&top_ids, DataType::Int32);
    graph.give(&top_ids, "candidate_ids", DataType::Int32, &shape);

    graph.scope("nucleus");
    let top_depths = self::depths(graph, &top_logits, &largest, &temperature); // [R, C]
    let top_weights = graph.exp(&top_depths);
    let shares = graph.div(&top_weights, &total);
    let candidate_mass = graph.reduce_last(Reduction::Sum, &shares); // [R, 1]
    let before = graph.sum_before(&shares);
    let is_in = graph.less(&before, &nucleus_p); // the token that crosses p is in
    let is_in = graph.cast(&is_in, DataType::Float);
    let nucleus_size = graph.reduce_last(Reduction::Sum, &is_in); // [R, 1]
    let kept = graph.mul(&shares, &is_in);
    let nucleus_mass = graph.reduce_last(Reduction::Sum, &kept);
    let moments = graph.mul(&kept, &top_depths);
    let moment = graph.reduce_last(Reduction::Sum, &moments);
    let mass_log_total = graph.mul(&nucleus_mass, &log_total);
    let nucleus_entropy = graph.sub(&mass_log_total, &moment);
    let scaled = graph.div(&nucleus_entropy, &nucleus_mass);
    let log_mass = graph.log(&nucleus_mass);
    let renormalised = graph.add(&scaled, &log_mass);
    let zero = graph.float("zero", &[], &[0.0]);
    let renormalised = graph.max(&renormalised, &zero); // of one token, but for rounding

    for (column, name) in [
        (&log_total, "log_totals"),
        (&chosen_logprob, "chosen_logprobs"),
        (&entropy, "entropies"),
        (&banned_mass, "banned_masses"),
        (&candidate_mass, "candidate_masses"),
        (&nucleus_mass, "nucleus_masses"),
        (&nucleus_entropy, "nucleus_entropies"),
        (&renormalised, "renormalised_entropies"),
    ] {
        let row = graph.reshape_to(column, &[-1]); // [R]
        graph.give(&row, name, DataType::Float, &rows);
    }
    let nucleus_size = graph.reshape_to(&nucleus_size, &[-1]);
    let nucleus_size = graph.cast(&nucleus_size, DataType::Int32);
    graph.give(&nucleus_size, "nucleus_sizes", DataType::Int32, &rows);
    Ok(())
}

/// `(logit - largest) / temperature`, at most 0: the subtraction first, which is exact where it matters.
fn depths(graph: &mut Graph, logits: &Value, largest: &Value, temperature: &Value) -> Value {
    let depths = graph.sub(logits, largest);
    graph.div(&depths, temperature)
}
