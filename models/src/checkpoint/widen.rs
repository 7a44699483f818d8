//! Stored floats to f32, at any alignment.

/// A float type that a checkpoint may be stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Float {
    F32,
    F16,
    BF16,
}

impl Float {
    /// Bytes per element.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

/// Converts as many elements as both sides hold. Every f16 and bf16 value is exact in f32.
pub(super) fn widen(bytes: &[u8], dtype: Float, out: &mut [f32]) {
    match dtype {
        Float::F32 => {
            for (value, chunk) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*chunk);
            }
        }
        Float::F16 => {
            for (value, chunk) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = half::f16::from_le_bytes(*chunk).to_f32();
            }
        }
        Float::BF16 => {
            for (value, chunk) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = half::bf16::from_le_bytes(*chunk).to_f32();
            }
        }
    }
}
