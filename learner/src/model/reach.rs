//! Who attends to whom, in one of two forms that give the same.
//!
//! | form | used | kernel |
//! |---|---|---|
//! | [`Rows`]: padded rows with a mask | on a CPU; on a GPU in f32, or where the other one fails | libtorch's flash attention for CPUs; on a GPU what libtorch's scaled dot product chooses, by a graph of its own |
//! | [`Spans`]: sequences end to end, no padding, no mask | on a GPU in bf16 | libtorch's flash attention for sequences of unlike length |
//!
//! N tokens, H heads, K kv heads, D head dim.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::rows::{self, Rows};
use super::spans::{self, Spans};

/// How sequences are laid out for attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As padded rows.
    Rows,
    /// End to end.
    Spans,
}

/// Whose queries see whose keys, of all flat tokens.
#[derive(Debug)]
pub enum Reach {
    /// Sets of padded rows; the sets' tokens follow each other in flat order.
    Rows(Vec<Rows>),
    /// The sequences, in flat order.
    Spans(Spans),
}

/// What attends: of all flat tokens.
#[derive(Debug)]
pub struct Heads {
    /// [N, H, D].
    pub q: Tensor,
    /// [N, K, D].
    pub k: Tensor,
    /// [N, K, D].
    pub v: Tensor,
}

/// What the way back needs beside the heads.
#[derive(Debug)]
pub struct Kept {
    /// What attention gave, [N, H*D].
    pub output: Tensor,
    /// What else the kernel asks for: the log sum exp of each query's scores, mostly. Empty where it is worked out again.
    pub statistics: Vec<Tensor>,
}

impl Form {
    /// The better one of what a device has, for heads of these widths.
    #[must_use]
    pub fn best(device: Device, kind: Kind, head_dims: &[usize]) -> Self {
        let fits = |dim: &usize| dim.is_multiple_of(8) && *dim <= spans::MAX_HEAD_DIM;
        let is_flash = device != Device::Cpu && kind != Kind::Float && head_dims.iter().all(fits);
        match is_flash && spans::works_on(device, kind) {
            true => Self::Spans,
            false => Self::Rows,
        }
    }
}

impl Reach {
    /// Spans (windows or whole images) of those lengths, which follow each other and each of which attends to itself.
    pub fn of_spans(lengths: &[usize], device: Device, form: Form) -> Result<Self> {
        Ok(match form {
            Form::Rows => Self::Rows(Rows::of_spans(lengths, device)?),
            Form::Spans => Self::Spans(Spans::alone(lengths, device)?),
        })
    }

    /// What the queries get, [N, H*D].
    pub fn attend(&self, heads: &Heads) -> Tensor {
        match self {
            Self::Rows(rows) => rows::attend(heads, rows),
            Self::Spans(spans) => spans.attend(heads),
        }
    }

    /// The same without a graph, and what the way back needs.
    pub fn attend_keeping(&self, heads: &Heads) -> Kept {
        match self {
            Self::Rows(rows) => rows::attend_keeping(heads, rows),
            Self::Spans(spans) => spans.attend_keeping(heads),
        }
    }

    /// The way back: gradients by the heads, given that by the output [N, H*D].
    pub fn backward(&self, heads: &Heads, kept: &Kept, by_output: &Tensor) -> Result<Heads> {
        match self {
            Self::Rows(rows) => rows::backward(heads, rows, kept, by_output),
            Self::Spans(spans) => spans.backward(heads, kept, by_output),
        }
    }

    /// The sets of padded rows; none in the other form.
    #[must_use]
    pub fn rows(&self) -> &[Rows] {
        match self {
            Self::Rows(rows) => rows,
            Self::Spans(_) => &[],
        }
    }
}
