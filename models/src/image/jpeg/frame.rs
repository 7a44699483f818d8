//! The frame: size of the image, and a plane of samples for each component.

use super::super::decode;
use super::idct::{BLOCK, SIDE};
use super::{corrupt, idct};
use crate::{Error, Result};

/// Largest sampling factor.
const MAX_FACTOR: usize = 4;

/// How the coefficients are spread over the file's scans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Each block is whole in one scan.
    Sequential,
    /// Each scan refines the blocks.
    Progressive,
}

/// What the frame header says, and what the scans have filled so far.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) coding: Coding,
    pub(super) components: Vec<Component>,
    /// Units of several components' blocks, across and down.
    pub(super) units: (usize, usize),
}

/// One component's blocks and samples.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks per unit, across and down.
    pub(super) factors: (usize, usize),
    /// How often a sample is repeated to fill the image, across and down.
    pub(super) stretch: (usize, usize),
    /// Size in samples, padding left out.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Samples from one row of the plane to the next.
    pub(super) stride: usize,
    /// `[blocks * 8, stride]`.
    pub(super) plane: Vec<u8>,
    /// Which quantisation table it takes.
    pub(super) table_index: usize,
    /// That table, as it was when the component's first scan began.
    pub(super) table: Option<[u16; BLOCK]>,
    /// Of a progressive file: the coefficients, block after block, in natural order.
    pub(super) coefficients: Vec<i16>,
}

impl Frame {
    /// Reads a frame header (without its length); refuses sizes beyond `max_pixels` before anything is allocated.
    pub(super) fn read(header: &[u8], coding: Coding, max_pixels: u64) -> Result<Self> {
        let [
            bits,
            height_high,
            height_low,
            width_high,
            width_low,
            count,
            ref specs @ ..,
        ] = *header
        else {
            return Err(corrupt("its frame header is cut short"));
        };
        let height = usize::from(u16::from_be_bytes([height_high, height_low]));
        let width = usize::from(u16::from_be_bytes([width_high, width_low]));
        let count = usize::from(count);
        if bits != 8 {
            return Err(Error::Image(format!(
                "JPEG of {bits} bits per sample is not supported"
            )));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(Error::Image(format!(
                "JPEG of {count} components is not supported"
            )));
        }
        if specs.len() != 3 * count {
            return Err(corrupt("its frame header is cut short"));
        }
        let narrow = decode::check_size(width, height, max_pixels)?;
        let specs: Vec<Spec> = specs.chunks_exact(3).map(Spec::new).collect();
        let widest = specs.iter().map(|spec| spec.factors.0).max().unwrap_or(0);
        let tallest = specs.iter().map(|spec| spec.factors.1).max().unwrap_or(0);
        if widest > MAX_FACTOR || tallest > MAX_FACTOR {
            return Err(corrupt("its sampling factors are out of bounds"));
        }
        for (index, spec) in specs.iter().enumerate() {
            if spec.factors.0 == 0 || spec.factors.1 == 0 {
                return Err(corrupt("its sampling factors are out of bounds"));
            }
            if specs[..index].iter().any(|other| other.id == spec.id) {
                return Err(corrupt("two of its components have one name"));
            }
            let is_whole =
                widest.is_multiple_of(spec.factors.0) && tallest.is_multiple_of(spec.factors.1);
            if !is_whole {
                return Err(Error::Image(
                    "JPEG with fractional sampling factors is not supported".to_owned(),
                ));
            }
        }
        let units = (
            width.div_ceil(widest * SIDE),
            height.div_ceil(tallest * SIDE),
        );
        let components = specs.iter().map(|spec| {
            let stride = units.0 * spec.factors.0 * SIDE;
            let num_samples = stride * units.1 * spec.factors.1 * SIDE;
            let num_coefficients = match coding {
                Coding::Sequential => 0,
                Coding::Progressive => num_samples,
            };
            Component {
                id: spec.id,
                factors: spec.factors,
                stretch: (widest / spec.factors.0, tallest / spec.factors.1),
                width: (width * spec.factors.0).div_ceil(widest),
                height: (height * spec.factors.1).div_ceil(tallest),
                stride,
                plane: vec![idct::MIDDLE; num_samples],
                table_index: spec.table_index,
                table: None,
                coefficients: vec![0; num_coefficients],
            }
        });
        Ok(Self {
            width: narrow.0,
            height: narrow.1,
            coding,
            components: components.collect(),
            units,
        })
    }

    /// After the last scan: the samples of a progressive file.
    pub(super) fn finish(&mut self) {
        for component in &mut self.components {
            let coefficients = std::mem::take(&mut component.coefficients);
            for (index, block) in coefficients.as_chunks().0.iter().enumerate() {
                let across = component.stride / SIDE;
                component.put(index % across, index / across, block);
            }
        }
    }
}

impl Component {
    /// Blocks, across and down, of a scan that holds this component alone: those that reach into the image.
    pub(super) fn own_blocks(&self) -> (usize, usize) {
        (self.width.div_ceil(SIDE), self.height.div_ceil(SIDE))
    }

    /// Where a block's coefficients lie.
    pub(super) fn coefficients_at(&mut self, column: usize, row: usize) -> &mut [i16; BLOCK] {
        let blocks = self.coefficients.as_chunks_mut().0;
        &mut blocks[row * (self.stride / SIDE) + column]
    }

    /// Turns a block into samples of the plane.
    pub(super) fn put(&mut self, column: usize, row: usize, block: &[i16; BLOCK]) {
        let Some(table) = &self.table else {
            return; // no scan named the component
        };
        let samples = idct::inverse(block, table);
        let start = row * SIDE * self.stride + column * SIDE;
        for (y, line) in samples.chunks_exact(SIDE).enumerate() {
            let start = start + y * self.stride;
            self.plane[start..start + SIDE].copy_from_slice(line);
        }
    }
}

/// A component as the frame header has it.
struct Spec {
    id: u8,
    factors: (usize, usize),
    table_index: usize,
}

impl Spec {
    fn new(bytes: &[u8]) -> Self {
        Self {
            id: bytes[0],
            factors: (usize::from(bytes[1] >> 4), usize::from(bytes[1] & 15)),
            table_index: usize::from(bytes[2]),
        }
    }
}
