//! The decoder's matrices in 8 bits, made anew from each version of the weights.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use models::checkpoint::{QuantizedLayout, QuantizedMatrix};
use rayon::prelude::*;

use super::kernel::quantize::{PANEL, QuantizePanel};
use crate::error::{Error, Result};

/// The bytes that `layout` describes, from a weights file in the published layout.
///
/// # Errors
/// A file that cannot be mapped or is too short.
#[allow(
    unsafe_code,
    reason = "the weights file is mapped: it is read once, from end to end"
)]
pub(super) fn quantize(weights: &Path, layout: &QuantizedLayout) -> Result<Arc<[u8]>> {
    let refused = |reason: String| Error::Weights {
        path: weights.to_path_buf(),
        reason,
    };
    let file = File::open(weights).map_err(|error| refused(error.to_string()))?;
    // SAFETY: published files never change; their folder is the run's own (DESIGN: mapped files are replaced, not rewritten).
    let file = unsafe { Mmap::map(&file) }.map_err(|error| refused(error.to_string()))?;
    let mut bytes = vec![0; layout.total_bytes];
    let mut rest = bytes.as_mut_slice();
    let mut start = 0;
    for matrix in &layout.matrices {
        let end = matrix.scales + matrix.out_features * size_of::<f32>();
        let (now, after) = rest.split_at_mut(end - start);
        let source = file
            .get(matrix.source..)
            .and_then(|bytes| {
                bytes.get(..matrix.in_features * matrix.out_features * size_of::<f32>())
            })
            .and_then(|bytes| bytemuck::try_cast_slice::<u8, f32>(bytes).ok())
            .ok_or_else(|| refused("is too short".to_owned()))?;
        let (integers, scales) =
            now[matrix.integers - start..].split_at_mut(matrix.scales - matrix.integers);
        quantize_matrix(matrix, source, integers, scales);
        rest = after;
        start = end;
    }
    Ok(bytes.into())
}

/// f32 `[out, in]` to i8 `[in, out]` and f32 `[out]`.
fn quantize_matrix(
    matrix: &QuantizedMatrix,
    source: &[f32],
    integers: &mut [u8],
    scales: &mut [u8],
) {
    let (width, height) = (matrix.in_features, matrix.out_features);
    let panels: Vec<(Vec<u8>, Vec<f32>)> = source
        .par_chunks(PANEL * width)
        .map(|weight| {
            let rows = weight.len() / width;
            let (mut integers, mut scales) = (vec![0; weight.len()], vec![0.0; rows]);
            pulp::Arch::new().dispatch(QuantizePanel {
                weight,
                integers: &mut integers,
                scales: &mut scales,
                width,
            });
            (integers, scales)
        })
        .collect();
    let all_scales: Vec<f32> = panels
        .iter()
        .flat_map(|(_, scales)| scales.clone())
        .collect();
    scales.copy_from_slice(bytemuck::cast_slice(&all_scales));
    integers[..width * height]
        .par_chunks_mut(height)
        .enumerate()
        .with_min_len(16)
        .for_each(|(column, out)| {
            for (out, (panel, scales)) in out.chunks_mut(PANEL).zip(&panels) {
                debug_assert_eq!(out.len(), scales.len());
                for (row, out) in out.iter_mut().enumerate() {
                    *out = panel[row * width + column];
                }
            }
        });
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
            integers: 0,
            scales: 0,
        };
        let source: Vec<f32> = (0..width * height)
            .map(|index| ((index * 7919 % 1013) as f32 / 506.0 - 1.0) * (1 + index / width) as f32)
            .collect();
        let (mut integers, mut scales) = (vec![0; width * height], vec![0; 4 * height]);
        quantize_matrix(&matrix, &source, &mut integers, &mut scales);
        let scales: Vec<f32> = bytemuck::pod_collect_to_vec(&scales);
        for row in 0..height {
            for column in 0..width {
                let back = f32::from(integers[column * height + row].cast_signed()) * scales[row];
                let expected = source[row * width + column];
                assert!(
                    (back - expected).abs() <= 0.5001 * scales[row],
                    "{row} {column}"
                );
            }
        }
    }
}
