//! Softmax attention over padded rows of flat tokens, there and back.
//!
//! N tokens of the flat list, n of them in a set of rows, R rows, L queries per row, M keys per row, H heads, K kv heads,
//! D head dim.

use anyhow::Result;
use models::positions::VisionPlan;
use tch::{Device, Kind, Tensor, with_grad};

use super::gradient;
use super::reach::{Heads, Kept};
use super::sets::{Row, sets};

/// A set of rows: whose queries see whose keys.
#[derive(Debug)]
pub struct Rows {
    /// R.
    pub num_rows: i64,
    /// Queries per row, padding included.
    pub num_queries: i64,
    /// Keys per row, padding included.
    pub num_keys: i64,
    /// Flat token of each query slot, i64 [R*L]; padding repeats token 0.
    pub queries: Tensor,
    /// Flat token of each key slot, i64 [R*M]; padding repeats token 0.
    pub keys: Tensor,
    /// Added to the scores, 0 or -inf, f32 [R, 1, L or 1, M].
    pub mask: Option<Tensor>,
    /// Whether a query sees the keys up to its own place alone, L = M. Then there is no mask.
    pub is_causal: bool,
    /// The query slots that hold a token, in flat order, i64 [n].
    pub unslot: Tensor,
}

/// What the queries get, [N, H*D]. The sets' tokens, one set after the other, are the N tokens in order.
pub fn attend(heads: &Heads, rows: &[Rows]) -> Tensor {
    let outputs: Vec<Tensor> = rows.iter().map(|rows| rows.attend(heads)).collect();
    Tensor::cat(&outputs, 0)
}

/// The same without a graph, and what the way back needs: log sum exp of each query's scores, [R, H, L] for each set of rows.
pub fn attend_keeping(heads: &Heads, rows: &[Rows]) -> Kept {
    if heads.q.device() != Device::Cpu {
        return Kept {
            output: attend(heads, rows),
            statistics: Vec::new(),
        };
    }
    let (outputs, statistics): (Vec<Tensor>, Vec<Tensor>) =
        rows.iter().map(|rows| rows.attend_keeping(heads)).unzip();
    Kept {
        output: Tensor::cat(&outputs, 0),
        statistics,
    }
}

/// The way back: gradients by the heads, given that by the output [N, H*D].
pub fn backward(heads: &Heads, rows: &[Rows], kept: &Kept, by_output: &Tensor) -> Result<Heads> {
    if kept.statistics.len() != rows.len() {
        return backward_again(heads, rows, by_output);
    }
    // A prompt's keys get something from each of its responses: added up in f32.
    let zeros = |x: &Tensor| Tensor::zeros(x.size(), (Kind::Float, x.device()));
    let (mut k, mut v) = (zeros(&heads.k), zeros(&heads.v));
    let mut q = Vec::with_capacity(rows.len());
    let mut first = 0;
    for (rows, logsumexp) in rows.iter().zip(&kept.statistics) {
        let len = rows.unslot.size1()?;
        let output = kept.output.narrow(0, first, len);
        let by_output = by_output.narrow(0, first, len);
        first += len;
        let by = rows.backward(heads, &output, logsumexp, &by_output);
        q.push(by.q);
        gradient::add_rows(&mut k, &rows.keys, &by.k)?;
        gradient::add_rows(&mut v, &rows.keys, &by.v)?;
    }
    let kind = heads.k.kind();
    Ok(Heads {
        q: Tensor::cat(&q, 0),
        k: k.to_kind(kind),
        v: v.to_kind(kind),
    })
}

/// The same by a graph of its own: on devices whose kernels libtorch chooses by itself.
fn backward_again(heads: &Heads, rows: &[Rows], by_output: &Tensor) -> Result<Heads> {
    with_grad(|| {
        let leaf = |x: &Tensor| x.detach().set_requires_grad(true);
        let heads = Heads {
            q: leaf(&heads.q),
            k: leaf(&heads.k),
            v: leaf(&heads.v),
        };
        gradient::into_graph(&attend(&heads, rows), by_output)?;
        Ok(Heads {
            q: heads.q.grad(),
            k: heads.k.grad(),
            v: heads.v.grad(),
        })
    })
}

impl Rows {
    /// Spans (windows or whole images) of those lengths, which follow each other and each of which attends to itself; spans
    /// of much the same length share a set.
    pub fn of_spans(lengths: &[usize], device: Device) -> Result<Vec<Self>> {
        let rows: Vec<Row> = lengths.iter().map(|&own| Row { shared: 0, own }).collect();
        let mut first = 0;
        let mut made = Vec::new();
        for set in sets(&rows) {
            let lengths = &lengths[set];
            made.push(Self::of_set(first, lengths, device)?);
            first += i64::try_from(lengths.iter().sum::<usize>())?;
        }
        Ok(made)
    }

    /// One set, whose first token is `first`.
    fn of_set(first: i64, lengths: &[usize], device: Device) -> Result<Self> {
        let padded = VisionPlan::padded(lengths);
        let width = i64::try_from(padded.width)?;
        let hidden: Vec<bool> = padded.mask.iter().map(|&is_real| !is_real).collect();
        let mask = hidden.contains(&true).then(|| {
            let hidden = Tensor::from_slice(&hidden)
                .to_device(device)
                .view([-1, 1, 1, width]);
            Tensor::zeros_like(&hidden)
                .to_kind(Kind::Float)
                .masked_fill(&hidden, f64::NEG_INFINITY)
        });
        let slots = (Tensor::from_slice(&padded.slots) + first).to_device(device);
        Ok(Self {
            num_rows: i64::try_from(lengths.len())?,
            num_queries: width,
            num_keys: width,
            keys: slots.shallow_clone(),
            queries: slots,
            mask,
            is_causal: false,
            unslot: Tensor::from_slice(&padded.unslot).to_device(device),
        })
    }

    /// Gather, attend, and put the tokens back into flat order; [n, H*D].
    fn attend(&self, heads: &Heads) -> Tensor {
        let Heads { q, mut k, mut v } = self.slots(heads);
        let queries_per_key = q.size()[1] / k.size()[1];
        if q.device() != Device::Cpu && queries_per_key > 1 {
            // Of a GPU's kernels only the one that takes no mask knows grouped queries.
            let each = |x: &Tensor| x.repeat_interleave_self_int(queries_per_key, 1, None);
            (k, v) = (each(&k), each(&v));
        }
        let mask = self.mask.as_ref().map(|mask| mask.to_kind(q.kind()));
        let output = Tensor::scaled_dot_product_attention(
            &q,
            &k,
            &v,
            mask.as_ref(),
            0.0,
            self.is_causal,
            None,
            q.size()[1] != k.size()[1],
        );
        self.flat(&output).flatten(1, 2)
    }

    /// The same by the kernel that libtorch chooses on a CPU, with its log sum exp [R, H, L].
    fn attend_keeping(&self, heads: &Heads) -> (Tensor, Tensor) {
        let Heads { q, k, v } = self.slots(heads);
        let (output, logsumexp) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            &q,
            &k,
            &v,
            0.0,
            self.is_causal,
            self.mask.as_ref(),
            None,
        );
        (self.flat(&output).flatten(1, 2), logsumexp)
    }

    /// Gradients by the query tokens [n, H, D] and by the key slots [R*M, K, D], given that by the output [n, H*D].
    fn backward(
        &self,
        heads: &Heads,
        output: &Tensor,
        logsumexp: &Tensor,
        by_output: &Tensor,
    ) -> Heads {
        let slots = self.slots(heads);
        let size = slots.q.size();
        let (num_heads, head_dim) = (size[1], size[3]);
        let slotted = |flat: &Tensor| self.slotted(flat).view([-1, num_heads, head_dim]);
        let (q, k, v) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
            &self.rows(&slotted(by_output), self.num_queries),
            &slots.q,
            &slots.k,
            &slots.v,
            &self.rows(&slotted(output), self.num_queries),
            logsumexp,
            0.0,
            self.is_causal,
            self.mask.as_ref(),
            None,
        );
        let keys = |x: &Tensor| x.transpose(1, 2).flatten(0, 1);
        Heads {
            q: self.flat(&q),
            k: keys(&k),
            v: keys(&v),
        }
    }

    /// q [R, H, L, D] and k, v [R, K, M, D].
    fn slots(&self, heads: &Heads) -> Heads {
        let keys = |x: &Tensor| self.rows(&x.index_select(0, &self.keys), self.num_keys);
        Heads {
            q: self.rows(&heads.q.index_select(0, &self.queries), self.num_queries),
            k: keys(&heads.k),
            v: keys(&heads.v),
        }
    }

    /// Slots [R*L, H, D] -> [R, H, L, D].
    fn rows(&self, slots: &Tensor, width: i64) -> Tensor {
        slots.unflatten(0, [self.num_rows, width]).transpose(1, 2)
    }

    /// [R, H, L, D] -> the tokens in flat order [n, H, D].
    fn flat(&self, rows: &Tensor) -> Tensor {
        rows.transpose(1, 2)
            .flatten(0, 1)
            .index_select(0, &self.unslot)
    }

    /// Tokens in flat order [n, ..] -> query slots [R*L, ..]; padding is zero.
    fn slotted(&self, flat: &Tensor) -> Tensor {
        let num_slots = self.num_rows * self.num_queries;
        let zeros = Tensor::zeros([num_slots, flat.size()[1]], (flat.kind(), flat.device()));
        zeros.index_copy(0, &self.unslot, flat)
    }
}
