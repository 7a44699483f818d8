//! The decoder's matrices in 8 bits, made anew from each version of the weights.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use models::checkpoint::QuantizedMatrix;
use rayon::prelude::*;

use super::kernel::quantize::QuantizeRows;
use crate::error::{Error, Result};

/// Rows of a matrix that are transposed together: a cache line of each column.
const PANEL: usize = 64;

/// A matrix in 8 bits.
#[derive(Debug)]
pub(super) struct Int8Matrix {
    /// i8 `[in, out]`.
    pub(super) integers: Vec<i8>,
    /// f32 `[out]`.
    pub(super) scales: Vec<f32>,
}

/// The matrices that `layout` describes, from a weights file in the published layout.
///
/// # Errors
/// A file that cannot be mapped or is too short.
#[allow(
    unsafe_code,
    reason = "the weights file is mapped: it is read once, from end to end"
)]
pub(super) fn quantize(weights: &Path, layout: &[QuantizedMatrix]) -> Result<Vec<Int8Matrix>> {
    let refused = |reason: String| Error::Weights {
        path: weights.to_path_buf(),
        reason,
    };
    let file = File::open(weights).map_err(|error| refused(error.to_string()))?;
    // SAFETY: published files never change; they are replaced by others under other names.
    let file = unsafe { Mmap::map(&file) }.map_err(|error| refused(error.to_string()))?;
    layout
        .iter()
        .map(|matrix| {
            let length = matrix.in_features * matrix.out_features * size_of::<f32>();
            let source = file
                .get(matrix.source..)
                .and_then(|bytes| bytes.get(..length))
                .and_then(|bytes| bytemuck::try_cast_slice::<u8, f32>(bytes).ok())
                .ok_or_else(|| refused("is too short".to_owned()))?;
            Ok(quantize_matrix(matrix, source))
        })
        .collect()
}

/// From f32 `[out, in]`.
fn quantize_matrix(matrix: &QuantizedMatrix, source: &[f32]) -> Int8Matrix {
    let (width, height) = (matrix.in_features, matrix.out_features);
    let panels: Vec<(Vec<u8>, Vec<f32>)> = source
        .par_chunks(PANEL * width)
        .map(|weight| {
            let rows = weight.len() / width;
            let (mut integers, mut scales) = (vec![0; weight.len()], vec![0.0; rows]);
            pulp::Arch::new().dispatch(QuantizeRows {
                x: weight,
                integers: &mut integers,
                scales: &mut scales,
                width,
                middle: 0,
            });
            (integers, scales)
        })
        .collect();
    let mut integers = vec![0; width * height];
    integers
        .par_chunks_mut(height)
        .enumerate()
        .with_min_len(16)
        .for_each(|(column, out)| {
            for (out, (panel, _)) in out.chunks_mut(PANEL).zip(&panels) {
                for (row, out) in out.iter_mut().enumerate() {
                    *out = panel[row * width + column].cast_signed();
                }
            }
        });
    Int8Matrix {
        integers,
        scales: panels.into_iter().flat_map(|(_, scales)| scales).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_comes_back_transposed_within_half_a_step() {
        let (width, height) = (37, 150);
        let matrix = QuantizedMatrix {
            names: Vec::new(),
            in_features: width,
            out_features: height,
            source: 0,
        };
        let source: Vec<f32> = (0..width * height)
            .map(|index| ((index * 7919 % 1013) as f32 / 506.0 - 1.0) * (1 + index / width) as f32)
            .collect();
        let Int8Matrix { integers, scales } = quantize_matrix(&matrix, &source);
        for row in 0..height {
            for column in 0..width {
                let back = f32::from(integers[column * height + row]) * scales[row];
                let expected = source[row * width + column];
                assert!(
                    (back - expected).abs() <= 0.5001 * scales[row],
                    "{row} {column}"
                );
            }
        }
    }
}
