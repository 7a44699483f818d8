//! The decoder's matrices packed for the engine's own products, anew from each version of the weights.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::{Mmap, UncheckedAdvice};
use models::checkpoint::{GROUP, Numbers, PANEL, PackedMatrix};
use rayon::prelude::*;

use super::kernel::quantize::QuantizeRows;
use crate::error::{Error, Result};

/// A packed matrix; see [`PackedMatrix`] for how it lies.
#[derive(Debug)]
pub(super) enum Packed {
    /// f32 `[panels, in, PANEL]`.
    Float(Vec<f32>),
    Int8(Int8Matrix),
}

/// A matrix in 8 bits.
#[derive(Debug)]
pub(super) struct Int8Matrix {
    /// i8 `[panels, groups, PANEL, GROUP]`.
    pub(super) integers: Vec<i8>,
    /// f32 `[panels, PANEL]`.
    pub(super) scales: Vec<f32>,
    /// i32 `[panels, PANEL]`.
    pub(super) sums: Vec<i32>,
}

/// The matrices that `layout` describes, from a weights file in the published layout.
///
/// # Errors
/// A file that cannot be mapped or is too short.
#[allow(
    unsafe_code,
    reason = "the weights file is mapped: it is read once, from end to end"
)]
pub(super) fn pack(weights: &Path, layout: &[PackedMatrix]) -> Result<Vec<Packed>> {
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
            let packed = match matrix.numbers {
                Numbers::Float => Packed::Float(pack_floats(matrix, source)),
                Numbers::Int8 => Packed::Int8(quantize_matrix(matrix, source)),
            };
            // Pages are given back matrix by matrix: to unmap all of them at once locks the address space for as long as a step
            // takes, and whoever asks for memory waits.
            // SAFETY: what is read again comes from the file again.
            let _ = unsafe {
                file.unchecked_advise_range(UncheckedAdvice::DontNeed, matrix.source, length)
            };
            Ok(packed)
        })
        .collect()
}

/// From f32 `[out, in]` to `[panels, in, PANEL]`.
fn pack_floats(matrix: &PackedMatrix, source: &[f32]) -> Vec<f32> {
    let width = matrix.in_features;
    let mut packed = vec![0.0; matrix.num_panels() * width * PANEL];
    packed
        .par_chunks_mut(width * PANEL)
        .enumerate()
        .for_each(|(panel, packed)| {
            for (channels, columns) in channels(matrix, panel) {
                let rows = source[channels.start * width..channels.end * width].chunks_exact(width);
                for (column, row) in columns.zip(rows) {
                    for (place, &x) in packed[column..].iter_mut().step_by(PANEL).zip(row) {
                        *place = x;
                    }
                }
            }
        });
    packed
}

/// From f32 `[out, in]`.
fn quantize_matrix(matrix: &PackedMatrix, source: &[f32]) -> Int8Matrix {
    let width = matrix.in_features;
    let length = matrix.num_groups() * GROUP * PANEL;
    let mut integers = vec![0; matrix.num_panels() * length];
    let mut scales = vec![0.0; matrix.num_panels() * PANEL];
    let mut sums = vec![0; matrix.num_panels() * PANEL];
    integers
        .par_chunks_mut(length)
        .zip(scales.par_chunks_mut(PANEL))
        .zip(sums.par_chunks_mut(PANEL))
        .enumerate()
        .for_each_init(
            || vec![0; PANEL * width],
            |rounded, (panel, ((integers, scales), sums))| {
                for (channels, columns) in channels(matrix, panel) {
                    let rounded = &mut rounded[..channels.len() * width];
                    pulp::Arch::new().dispatch(QuantizeRows {
                        x: &source[channels.start * width..channels.end * width],
                        integers: rounded,
                        scales: &mut scales[columns.clone()],
                        width,
                        middle: 0,
                    });
                    for (column, row) in columns.zip(rounded.chunks_exact(width)) {
                        sums[column] = row.iter().map(|&x| i32::from(x.cast_signed())).sum();
                        let steps = integers.chunks_exact_mut(PANEL * GROUP);
                        for (step, group) in steps.zip(row.chunks(GROUP)) {
                            let place = &mut step[column * GROUP..][..group.len()];
                            for (place, &x) in place.iter_mut().zip(group) {
                                *place = x.cast_signed();
                            }
                        }
                    }
                }
            },
        );
    Int8Matrix {
        integers,
        scales,
        sums,
    }
}

/// The output channels of a panel, and their places in it: one run of them or, gated, two.
fn channels(matrix: &PackedMatrix, panel: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let (width, panel_width) = (matrix.width(), matrix.panel_width());
    let first = panel * panel_width;
    let channels = first..width.min(first + panel_width);
    let number = channels.len();
    let mut runs = vec![(channels.clone(), 0..number)];
    if matrix.is_gated {
        let partners = width + channels.start..width + channels.end;
        runs.push((partners, PANEL / 2..PANEL / 2 + number));
    }
    runs
}

/// A weight f32 `[out, in]` in panels.
#[cfg(test)]
pub(super) fn float_panels(weight: &[f32], in_features: usize, is_gated: bool) -> Vec<f32> {
    let out_features = weight.len() / in_features;
    pack_floats(
        &layout(in_features, out_features, is_gated, Numbers::Float),
        weight,
    )
}

#[cfg(test)]
impl Int8Matrix {
    /// From integers and scales, channel by channel.
    pub(super) fn from_integers(weight: &[Vec<i8>], scales: &[f32], is_gated: bool) -> Self {
        let layout = layout(weight[0].len(), weight.len(), is_gated, Numbers::Int8);
        let panels = layout.num_panels();
        let mut matrix = Self {
            integers: vec![0; panels * layout.num_groups() * GROUP * PANEL],
            scales: vec![0.0; panels * PANEL],
            sums: vec![0; panels * PANEL],
        };
        for panel in 0..panels {
            for (channels, columns) in channels(&layout, panel) {
                for (channel, column) in channels.zip(columns) {
                    matrix.scales[panel * PANEL + column] = scales[channel];
                    matrix.sums[panel * PANEL + column] =
                        weight[channel].iter().map(|&x| i32::from(x)).sum();
                    for (index, &x) in weight[channel].iter().enumerate() {
                        let at = place(&layout, panel, column, index);
                        matrix.integers[at] = x;
                    }
                }
            }
        }
        matrix
    }
}

#[cfg(test)]
fn layout(
    in_features: usize,
    out_features: usize,
    is_gated: bool,
    numbers: Numbers,
) -> PackedMatrix {
    PackedMatrix {
        names: Vec::new(),
        in_features,
        out_features,
        is_gated,
        numbers,
        source: 0,
    }
}

/// Where an integer lies.
#[cfg(test)]
fn place(layout: &PackedMatrix, panel: usize, column: usize, index: usize) -> usize {
    let step = panel * layout.num_groups() + index / GROUP;
    (step * PANEL + column) * GROUP + index % GROUP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_finds_its_place_within_half_a_step() {
        for (width, height, is_gated) in [(37, 150, false), (64, 64, false), (30, 150, true)] {
            let matrix = layout(width, height, is_gated, Numbers::Int8);
            let source: Vec<f32> = (0..width * height)
                .map(|index| {
                    ((index * 7919 % 1013) as f32 / 506.0 - 1.0) * (1 + index / width) as f32
                })
                .collect();
            let int8 = quantize_matrix(&matrix, &source);
            let mut seen = 0;
            for panel in 0..matrix.num_panels() {
                for (channels, columns) in channels(&matrix, panel) {
                    for (channel, column) in channels.zip(columns) {
                        let scale = int8.scales[panel * PANEL + column];
                        let mut sum = 0;
                        for index in 0..width {
                            let integer = int8.integers[place(&matrix, panel, column, index)];
                            sum += i32::from(integer);
                            let back = f32::from(integer) * scale;
                            let expected = source[channel * width + index];
                            assert!(
                                (back - expected).abs() <= 0.5001 * scale,
                                "{channel} {index}"
                            );
                        }
                        assert_eq!(sum, int8.sums[panel * PANEL + column]);
                        seen += 1;
                    }
                }
            }
            assert_eq!(seen, height);
        }
    }
}
