//! Forms of a graph: which operators it is made of, and with them how it sees its cache and its weights.

use super::weights::Weights;
use crate::checkpoint::{F32Layout, PackedMatrix};
use crate::onnx::DataType;

/// What a graph is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Standard operators and ONNX Runtime's: for export, opens in any ONNX Runtime. Rows padded to one width, a buffer each.
    Portable,
    /// Those of domain `tor` too, which `rollout` brings along: tokens packed without padding, a cache in shared blocks.
    Engine,
    /// Standard operators alone, so that TensorRT makes one engine of the whole graph; weights are inputs.
    Trt(Trt),
    /// ONNX Runtime's operators for CUDA; weights are inputs.
    Cuda(Cuda),
}

/// A graph for TensorRT 10.15 or 10.16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trt {
    /// Of weights, activations and the cache.
    pub elements: Elements,
    /// Whether the operators that TensorRT learned last may be used.
    pub operators: Operators,
    /// Slots M of a row's cache, prompt and response together: TensorRT wants it fixed.
    pub slots: usize,
    /// Candidates per row that the head gives; without it there are logits alone.
    pub candidates: Option<usize>,
}

/// A graph for ONNX Runtime's CUDA provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cuda {
    /// Of weights, activations and the cache.
    pub elements: Elements,
    /// How the cache lies.
    pub cache: CudaCache,
    /// Candidates per row that the head gives; without it there are logits alone.
    pub candidates: Option<usize>,
}

/// Element type of weights, activations and the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elements {
    /// For tests: ONNX Runtime's CPU provider computes nothing in bf16.
    F32,
    /// What devices compute in. Angles, rotations of patches and all of the head stay f32.
    Bf16,
}

/// Operators of a [`Trt`] graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operators {
    /// Attention and RotaryEmbedding as they are.
    Native,
    /// Both as products, sums and a softmax: for TensorRT builds that refuse one of them.
    Decomposed,
}

/// Cache of a [`Cuda`] graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CudaCache {
    /// Blocks that sequences share (PagedAttention): packed tokens, prefill and decode in one pass.
    Blocks,
    /// A buffer per row (GroupQueryAttention), as in [`Form::Portable`].
    Rows,
}

impl From<Elements> for DataType {
    fn from(elements: Elements) -> Self {
        match elements {
            Elements::F32 => Self::Float,
            Elements::Bf16 => Self::Bfloat16,
        }
    }
}

impl Form {
    /// Element type of weights, activations and the cache.
    pub(super) fn elements(self) -> DataType {
        match self {
            Self::Portable | Self::Engine => DataType::Float,
            Self::Trt(Trt { elements, .. }) | Self::Cuda(Cuda { elements, .. }) => elements.into(),
        }
    }

    /// Whether it runs on a device, where weights are inputs that a sync writes in place.
    pub(super) fn is_for_device(self) -> bool {
        matches!(self, Self::Trt(_) | Self::Cuda(_))
    }

    /// Whether operators that are new in TensorRT are spelled out.
    pub(super) fn is_decomposed(self) -> bool {
        matches!(self, Self::Trt(trt) if trt.operators == Operators::Decomposed)
    }

    /// Candidates per row, where the head gives statistics.
    pub(super) fn candidates(self) -> Option<usize> {
        match self {
            Self::Portable | Self::Engine => None,
            Self::Trt(Trt { candidates, .. }) | Self::Cuda(Cuda { candidates, .. }) => candidates,
        }
    }

    /// The weights as this form has them.
    pub(super) fn weights<'a>(
        self,
        layout: &'a F32Layout,
        packed: &'a [PackedMatrix],
    ) -> Weights<'a> {
        let weights = Weights::new(layout).with_packed(packed);
        if self.is_for_device() {
            weights.as_inputs(self.elements())
        } else {
            weights
        }
    }
}
