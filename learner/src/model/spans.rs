//! Softmax attention over sequences that lie end to end, each of its own length: no padding, no mask.
//!
//! A response asks with its own tokens alone and looks at its prompt's keys and at its own, side by side; so each query
//! sees the keys up to its own place, counted from the end, which is what libtorch's flash attention does with fewer queries
//! than keys. The prompt's keys are copied for each of its responses; of keys there are few heads. Nothing else is.
//!
//! On a CPU, for comparison, one sequence after the other.
//!
//! N tokens, S sequences, L queries and M keys of one of them, Q and T queries and keys of all, H heads, K kv heads, D head dim.

use std::sync::OnceLock;

use anyhow::Result;
use tch::{Device, Kind, Tensor, no_grad};

use super::gradient;
use super::reach::{Heads, Kept};
use super::sets::Row;
use crate::operator::{self, Argument as A};

/// Widest head that the flash kernel takes.
pub const MAX_HEAD_DIM: usize = 256;
/// Largest relative difference that [`works_on`] takes for rounding.
pub const ROUNDING: f64 = 0.05;

/// Sequences in flat order.
#[derive(Debug)]
pub struct Spans {
    rows: Vec<Row>,
    /// Flat token of each key, i64 [T]; `None` where each sequence looks at itself alone.
    keys: Option<Tensor>,
    /// First query and first key of each sequence, and the end; i32 [S+1].
    first_queries: Tensor,
    first_keys: Tensor,
    /// Whether a query sees the keys up to its own place alone.
    is_causal: bool,
    /// L and M of the longest ones.
    max_queries: i64,
    max_keys: i64,
}

impl Spans {
    /// Spans of those lengths, each of which attends to all of itself.
    pub fn alone(lengths: &[usize], device: Device) -> Result<Self> {
        let rows = lengths.iter().map(|&own| Row { shared: 0, own }).collect();
        Self::of(rows, None, false, device)
    }

    /// Prompts and responses, which see what stands before them; each with the flat token of the first of the keys that it
    /// shares and of its own first one. Own tokens follow each other in flat order.
    pub fn causal(sequences: &[(Row, usize, usize)], device: Device) -> Result<Self> {
        let mut keys = Vec::new();
        for &(row, shared, own) in sequences {
            for flat in (shared..shared + row.shared).chain(own..own + row.own) {
                keys.push(i64::try_from(flat)?);
            }
        }
        let rows: Vec<Row> = sequences.iter().map(|(row, _, _)| *row).collect();
        let keys = rows
            .iter()
            .any(|row| row.shared > 0)
            .then(|| Tensor::from_slice(&keys).to_device(device));
        Self::of(rows, keys, true, device)
    }

    fn of(rows: Vec<Row>, keys: Option<Tensor>, is_causal: bool, device: Device) -> Result<Self> {
        let num_keys = |row: &Row| row.shared + row.own;
        let firsts = |lengths: &mut dyn Iterator<Item = usize>| -> Result<Tensor> {
            let mut sum = 0;
            let mut firsts = vec![0];
            for length in lengths {
                sum += length;
                firsts.push(i32::try_from(sum)?);
            }
            Ok(Tensor::from_slice(&firsts).to_device(device))
        };
        let max_queries = rows.iter().map(|row| row.own).max().unwrap_or(0);
        let max_keys = rows.iter().map(num_keys).max().unwrap_or(0);
        Ok(Self {
            keys,
            first_queries: firsts(&mut rows.iter().map(|row| row.own))?,
            first_keys: firsts(&mut rows.iter().map(num_keys))?,
            is_causal,
            max_queries: i64::try_from(max_queries)?,
            max_keys: i64::try_from(max_keys)?,
            rows,
        })
    }

    /// What the queries get, [N, H*D]. Where libtorch makes a graph it knows its own way back.
    pub fn attend(&self, heads: &Heads) -> Tensor {
        self.attend_keeping(heads).output
    }

    /// The same and what the way back needs.
    pub fn attend_keeping(&self, heads: &Heads) -> Kept {
        // As tch's own functions do: what fails here is a bug, or memory that has run out.
        self.f_attend_keeping(heads)
            .unwrap_or_else(|error| panic!("attention: {error:#}"))
    }

    fn f_attend_keeping(&self, heads: &Heads) -> Result<Kept> {
        let (k, v) = self.keys(heads);
        let (output, statistics) = match heads.q.device() {
            Device::Cpu => self.one_by_one(&heads.q, &k, &v),
            _ => self.flash(&heads.q, &k, &v)?,
        };
        Ok(Kept {
            output: output.flatten(1, 2),
            statistics,
        })
    }

    /// The way back: gradients by the heads, given that by the output [N, H*D].
    pub fn backward(&self, heads: &Heads, kept: &Kept, by_output: &Tensor) -> Result<Heads> {
        let (k, v) = self.keys(heads);
        let shape = heads.q.size();
        let slotted = Heads {
            q: heads.q.shallow_clone(),
            k,
            v,
        };
        let (output, by_output) = (
            kept.output.view_as(&heads.q),
            by_output.f_reshape(shape.as_slice())?,
        );
        let by = match heads.q.device() {
            Device::Cpu => {
                self.one_by_one_backward(&slotted, &output, &kept.statistics, &by_output)
            }
            _ => self.flash_backward(&slotted, &output, &kept.statistics, &by_output)?,
        };
        let Some(keys) = &self.keys else {
            return Ok(by);
        };
        // A prompt's keys get something from each of its responses: added up in f32.
        let add_up = |by: &Tensor, x: &Tensor| -> Result<Tensor> {
            let mut sum = Tensor::zeros(x.size(), (Kind::Float, x.device()));
            gradient::add_rows(&mut sum, keys, by)?;
            Ok(sum.to_kind(x.kind()))
        };
        Ok(Heads {
            q: by.q,
            k: add_up(&by.k, &heads.k)?,
            v: add_up(&by.v, &heads.v)?,
        })
    }

    /// Keys and values of all sequences, [T, K, D].
    fn keys(&self, heads: &Heads) -> (Tensor, Tensor) {
        match &self.keys {
            Some(keys) => (heads.k.index_select(0, keys), heads.v.index_select(0, keys)),
            None => (heads.k.shallow_clone(), heads.v.shallow_clone()),
        }
    }

    /// The kernel for GPUs: [N, H, D], and log sum exp [H, Q] with the two tensors that dropout would need.
    fn flash(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let [output, logsumexp, random, unused, _] = operator::call::<5>(
            c"aten::_flash_attention_forward",
            c"",
            &[
                A::Tensor(q),
                A::Tensor(k),
                A::Tensor(v),
                A::SomeTensor(&self.first_queries),
                A::SomeTensor(&self.first_keys),
                A::Int(self.max_queries),
                A::Int(self.max_keys),
                A::Float(0.0), // dropout
                A::Bool(self.is_causal),
                A::Bool(false), // return_debug_mask
                A::None,        // scale: 1 / sqrt(D)
                A::None,        // window_size_left
                A::None,        // window_size_right
                A::None,        // seqused_k
                A::None,        // alibi_slopes
            ],
        )?;
        Ok((output, vec![logsumexp, random, unused]))
    }

    fn flash_backward(
        &self,
        heads: &Heads,
        output: &Tensor,
        statistics: &[Tensor],
        by_output: &Tensor,
    ) -> Result<Heads> {
        let [logsumexp, random, unused] = statistics else {
            anyhow::bail!(
                "attention's statistics: expected 3, got {}",
                statistics.len()
            )
        };
        let (q, k, v) = Tensor::f_internal_flash_attention_backward(
            by_output,
            &heads.q,
            &heads.k,
            &heads.v,
            output,
            logsumexp,
            &self.first_queries,
            &self.first_keys,
            self.max_queries,
            self.max_keys,
            0.0,
            self.is_causal,
            random,
            unused,
            None,
            None,
            None,
        )?;
        Ok(Heads { q, k, v })
    }

    /// The same by the kernel for CPUs: [N, H, D], and log sum exp [1, H, L] of each sequence.
    fn one_by_one(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> (Tensor, Vec<Tensor>) {
        let (mut outputs, mut statistics) = (Vec::new(), Vec::new());
        for place in self.places() {
            let (output, logsumexp) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
                &place.queries(q),
                &place.keys(k),
                &place.keys(v),
                0.0,
                false,
                self.mask(&place, q).as_ref(),
                None,
            );
            outputs.push(output.squeeze_dim(0).transpose(0, 1)); // [L, H, D]
            statistics.push(logsumexp);
        }
        (Tensor::cat(&outputs, 0), statistics)
    }

    fn one_by_one_backward(
        &self,
        heads: &Heads,
        output: &Tensor,
        statistics: &[Tensor],
        by_output: &Tensor,
    ) -> Heads {
        let mut by = [const { Vec::new() }; 3];
        for (place, logsumexp) in self.places().zip(statistics) {
            let (q, k, v) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
                &place.queries(by_output),
                &place.queries(&heads.q),
                &place.keys(&heads.k),
                &place.keys(&heads.v),
                &place.queries(output),
                logsumexp,
                0.0,
                false,
                self.mask(&place, &heads.q).as_ref(),
                None,
            );
            for (parts, part) in by.iter_mut().zip([q, k, v]) {
                parts.push(part.squeeze_dim(0).transpose(0, 1));
            }
        }
        let [q, k, v] = by.map(|parts| Tensor::cat(&parts, 0));
        Heads { q, k, v }
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let (mut query, mut key) = (0, 0);
        self.rows.iter().map(move |row| {
            let place = Place {
                query,
                key,
                num_queries: row.own as i64,
                num_keys: (row.shared + row.own) as i64,
            };
            query += place.num_queries;
            key += place.num_keys;
            place
        })
    }

    /// Added to the scores, [1, 1, L, M].
    fn mask(&self, place: &Place, q: &Tensor) -> Option<Tensor> {
        let (queries, keys) = (place.num_queries, place.num_keys);
        self.is_causal.then(|| {
            let sees = Tensor::ones([queries, keys], (Kind::Bool, q.device())).tril(keys - queries);
            Tensor::zeros([1, 1, queries, keys], (Kind::Float, q.device()))
                .masked_fill(&sees.logical_not(), f64::NEG_INFINITY)
        })
    }
}

/// Where a sequence lies among all queries and all keys.
struct Place {
    query: i64,
    key: i64,
    num_queries: i64,
    num_keys: i64,
}

impl Place {
    /// [Q, H, D] -> [1, H, L, D]
    fn queries(&self, x: &Tensor) -> Tensor {
        x.narrow(0, self.query, self.num_queries)
            .transpose(0, 1)
            .unsqueeze(0)
    }

    /// [T, K, D] -> [1, K, M, D]
    fn keys(&self, x: &Tensor) -> Tensor {
        x.narrow(0, self.key, self.num_keys)
            .transpose(0, 1)
            .unsqueeze(0)
    }
}

/// Whether a GPU's kernel does what is written here: tried once, on a few tokens, against a CPU.
pub fn works_on(device: Device, kind: Kind) -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| match no_grad(|| largest_error(device, kind)) {
        Ok(error) if error < ROUNDING => true,
        outcome => {
            let reason = match outcome {
                Ok(error) => format!("it is off by {error:.2}"),
                Err(error) => format!("{error:#}"),
            };
            tracing::warn!(
                "flash attention does not work on this GPU ({reason}): padded rows and libtorch's own choice of a kernel instead, which takes more time and memory"
            );
            false
        }
    })
}

/// Largest difference between a device's output and gradients and a CPU's in f32, of a prompt of 70 tokens and two responses.
pub fn largest_error(device: Device, kind: Kind) -> Result<f64> {
    const NUM_TOKENS: i64 = 70 + 5 + 33;
    let row = |shared, own| Row { shared, own };
    let sequences = [
        (row(0, 70), 0, 0),
        (row(70, 5), 0, 70),
        (row(70, 33), 0, 75),
    ];
    // Numbers that bf16 holds exactly, in no order.
    let noise = |heads: i64, seed: i64| {
        let count = NUM_TOKENS * heads * 64;
        let numbers = Tensor::arange(count, (Kind::Int64, Device::Cpu)) * 7919 + seed * 104_729;
        let numbers: Tensor = numbers.remainder(101) - 50;
        (numbers.to_kind(Kind::Float) / 32.0).view([NUM_TOKENS, heads, 64])
    };
    let heads = [noise(4, 1), noise(2, 2), noise(2, 3)];
    let by_output = noise(4, 4).flatten(1, 2);
    let run = |device: Device, kind: Kind| -> Result<[Tensor; 4]> {
        let there = |x: &Tensor| x.to_device(device).to_kind(kind);
        let [q, k, v] = heads.each_ref().map(there);
        let heads = Heads { q, k, v };
        let spans = Spans::causal(&sequences, device)?;
        let kept = spans.f_attend_keeping(&heads)?;
        let by = spans.backward(&heads, &kept, &there(&by_output))?;
        Ok([kept.output, by.q, by.k, by.v])
    };
    let (got, expected) = (run(device, kind)?, run(Device::Cpu, Kind::Float)?);
    let mut largest = 0.0_f64;
    for (got, expected) in got.iter().zip(&expected) {
        let got = got.to_device(Device::Cpu).to_kind(Kind::Float);
        let scale = expected.abs().max().double_value(&[]).max(1.0);
        let error = (got - expected).abs().max().double_value(&[]) / scale;
        // Written so that a NaN is the largest.
        largest = if error <= largest { largest } else { error };
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trial_passes_where_the_kernel_is_right() {
        assert_eq!(largest_error(Device::Cpu, Kind::Float).unwrap(), 0.0);
    }
}
