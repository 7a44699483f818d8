//! `tor.Linear`: a linear layer in f32, and what follows it.
//!
//! `// T rows, I in, O columns: output channels or, gated, half of them; P panels`
//!
//! | input | type | |
//! |---|---|---|
//! | `x` | f32 `[T, I]` | |
//! | `panels` | f32 `[P, I, PANEL]` | the weight; see `models::checkpoint::PackedMatrix` |
//! | `plus` | f32 `[channels]` or `[T, O]`, may be missing | a bias, or a residual |
//!
//! Output: f32 `[T, O]`, `x w + plus`; gated: `silu(that of the gate) * that of its partner`. Every sum runs over the input
//! channels in their order: it depends neither on the rows beside it nor on how tiles and threads cut the product.

use models::checkpoint::PANEL;

use super::lanes::{LANES, Lanes};
use super::panels::{Block, Pass, Plus, Products, Shape, TILE_ROWS, panel};
use super::parallel::Parallel;
use super::prefetch;

/// An input channel of a tile's rows.
type Channel = [f32; TILE_ROWS];

/// The sums of a row.
type Sums = [Lanes; PANEL / LANES];

/// What one product reads.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Inputs<'a> {
    pub(in crate::engine) x: &'a [f32],
    /// I.
    pub(in crate::engine) in_features: usize,
    pub(in crate::engine) panels: &'a [f32],
    pub(in crate::engine) plus: Plus<'a>,
}

/// A layer's product with its buffer.
#[derive(Debug)]
pub(in crate::engine) struct Linear {
    shape: Shape,
    /// x, `[tiles, I]`.
    tiles: Vec<Channel>,
}

impl Linear {
    pub(in crate::engine) fn new(shape: Shape) -> Self {
        Self {
            shape,
            tiles: Vec::new(),
        }
    }

    /// The layer's output, into `out` `[T, O]`.
    ///
    /// # Errors
    /// Sizes that do not match.
    pub(in crate::engine) fn run(
        &mut self,
        inputs: &Inputs<'_>,
        out: &mut [f32],
        parallel: &Parallel<'_>,
    ) -> Result<(), &'static str> {
        let width = inputs.in_features;
        let rows = inputs.x.len() / width.max(1);
        let fits = width > 0
            && inputs.panels.len() == self.shape.num_panels() * width * PANEL
            && self.shape.fits(rows, inputs.plus, out);
        if !fits {
            return Err("Linear: the shapes of x, weight and plus do not match");
        }
        // What is left of earlier rows is never read.
        self.tiles
            .resize(rows.div_ceil(TILE_ROWS) * width, Channel::default());
        let x = inputs.x.chunks(TILE_ROWS * width);
        for (x, tile) in x.zip(self.tiles.chunks_exact_mut(width)) {
            for (row, x) in x.chunks_exact(width).enumerate() {
                for (channel, &x) in tile.iter_mut().zip(x) {
                    channel[row] = x;
                }
            }
        }
        let layer = &*self;
        self.shape.run(&Run { layer, inputs }, out, parallel);
        Ok(())
    }
}

/// One run over its inputs.
struct Run<'a> {
    layer: &'a Linear,
    inputs: &'a Inputs<'a>,
}

impl Pass for Run<'_> {
    #[inline(always)]
    fn panel(&self, index: usize, block: &mut Block<'_>) {
        let Self { layer, inputs } = *self;
        let width = inputs.in_features;
        let weight = panel(inputs.panels, index, width * PANEL);
        let mut next = panel(inputs.panels, index + 1, width * PANEL);
        let columns = layer.shape.columns(&block.panels, index, inputs.plus);
        for (part, out) in block.out.chunks_mut(TILE_ROWS).enumerate() {
            let first_row = block.first_row + part * TILE_ROWS;
            let first = first_row / TILE_ROWS * width;
            let tile = &layer.tiles[first..first + width];
            let mut sums = [[Lanes::ZERO; PANEL / LANES]; TILE_ROWS];
            match out.len() {
                1 => sum::<1>(tile, weight, next, &mut sums),
                2 => sum::<2>(tile, weight, next, &mut sums),
                3 => sum::<3>(tile, weight, next, &mut sums),
                4 => sum::<4>(tile, weight, next, &mut sums),
                5 => sum::<5>(tile, weight, next, &mut sums),
                _ => sum::<TILE_ROWS>(tile, weight, next, &mut sums),
            }
            next = prefetch::behind(next, width);
            for ((row, out), sums) in (first_row..).zip(out).zip(&sums) {
                let shape = &layer.shape;
                shape.finish(&Row(sums), inputs.plus, &columns, row, out);
            }
        }
    }
}

/// The products of a tile's first rows with a panel; meanwhile a cache line of what is `next` is fetched a step.
#[inline(always)]
fn sum<const ROWS: usize>(
    tile: &[Channel],
    weight: &[f32],
    next: &[f32],
    sums: &mut [Sums; TILE_ROWS],
) {
    let mut total = [[Lanes::ZERO; PANEL / LANES]; ROWS];
    let (weight, _) = weight.as_chunks::<PANEL>();
    for (index, (channel, weight)) in tile.iter().zip(weight).enumerate() {
        prefetch::line(next, index);
        let (weight, _) = weight.as_chunks::<LANES>();
        for (total, &x) in total.iter_mut().zip(channel) {
            for (total, &weight) in total.iter_mut().zip(weight) {
                *total = total.mul_add(x, Lanes(weight));
            }
        }
    }
    sums[..ROWS].copy_from_slice(&total);
}

/// A row's sums.
struct Row<'a>(&'a Sums);

impl Products for Row<'_> {
    #[inline(always)]
    fn plus(&self, channel: usize, plus: f32) -> f32 {
        self.0[channel / LANES].0[channel % LANES] + plus
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::packed::float_panels;

    /// One after the other.
    fn serial(count: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(work);
    }

    #[test]
    fn equals_the_formula_for_any_shape_and_whatever_follows() {
        for (rows, in_features, channels) in [
            (1, 4, 2),
            (6, 64, 64),
            (7, 37, 130),
            (13, 70, 200),
            (65, 16, 4),
        ] {
            let number = |index: usize| (index * 7919 % 1013) as f32 / 506.0 - 1.0;
            let numbers = |count: usize| (0..count).map(number).collect::<Vec<f32>>();
            let (x, weight) = (numbers(rows * in_features), numbers(channels * in_features));
            let (bias, residual) = (numbers(channels), numbers(rows * channels));
            for (is_gated, kind) in [(false, 0), (false, 1), (false, 2), (true, 0), (true, 1)] {
                let width = channels / if is_gated { 2 } else { 1 };
                let panels = float_panels(&weight, in_features, is_gated);
                let run = |threads| {
                    let inputs = Inputs {
                        x: &x,
                        in_features,
                        panels: &panels,
                        plus: [Plus::Nothing, Plus::Bias(&bias), Plus::Residual(&residual)][kind],
                    };
                    let mut out = vec![f32::NAN; rows * width];
                    let shape = Shape {
                        width,
                        is_gated,
                        threads,
                    };
                    Linear::new(shape).run(&inputs, &mut out, &serial).unwrap();
                    out
                };
                let got = run(1);
                let y = |row: usize, channel: usize| {
                    let x = &x[row * in_features..(row + 1) * in_features];
                    let weight = &weight[channel * in_features..(channel + 1) * in_features];
                    let products = x
                        .iter()
                        .zip(weight)
                        .map(|(&x, &w)| f64::from(x) * f64::from(w));
                    products.sum::<f64>()
                        + f64::from([0.0, bias[channel], residual[row * channels + channel]][kind])
                };
                for (index, &got) in got.iter().enumerate() {
                    let (row, column) = (index / width, index % width);
                    let expected = if is_gated {
                        let gate = y(row, column);
                        gate / (1.0 + (-gate).exp()) * y(row, width + column)
                    } else {
                        y(row, column)
                    };
                    assert!(
                        (f64::from(got) - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                        "{rows} x {in_features} x {channels}, gated {is_gated}, {kind}, {index}: {got}, not {expected}"
                    );
                }
                for threads in [2, 5, 64] {
                    assert!(got == run(threads), "{threads} threads");
                }
            }
        }
    }

    #[test]
    fn shapes_that_do_not_match_are_refused() {
        let shape = Shape {
            width: 64,
            is_gated: false,
            threads: 1,
        };
        let inputs = Inputs {
            x: &[1.0; 8],
            in_features: 4,
            panels: &[1.0; 255],
            plus: Plus::Nothing,
        };
        let mut out = [0.0; 128];
        assert!(Linear::new(shape).run(&inputs, &mut out, &serial).is_err());
    }
}
