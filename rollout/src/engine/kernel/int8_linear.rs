//! `tor.Int8Linear`: a linear layer on 8-bit integers, and what follows it.
//!
//! `// T tokens, I in, O columns: output channels or, gated, half of them; P panels`
//!
//! | input | type | |
//! |---|---|---|
//! | `x` | f32 `[T, I]` | |
//! | `integers` | i8 `[P, groups, PANEL, GROUP]` | the weight; see `models::checkpoint::PackedMatrix` |
//! | `scales` | f32 `[P, PANEL]` | of the output channels |
//! | `sums` | i32 `[P, PANEL]` | of the output channels' integers |
//! | `plus` | f32 `[channels]` or `[T, O]`, may be missing | a bias, or a residual |
//!
//! Output: f32 `[T, O]`. Every token is rounded to 8 bits with a scale of its own, the sum over input channels is exact:
//! `y = (x8 . w8) * scale[channel] * scale[token] + plus`; gated: `silu(y of the gate) * y of its partner`.
//! So the result does not depend on the tokens beside it, nor on how tiles and threads cut it.

use models::checkpoint::{GROUP, PANEL};
use pulp::NullaryFnOnce;

use super::dot::{Channels, Dot, Operands, Sums};
use super::panels::{Block, Pass, Plus, Products, Shape, TILE_ROWS, panel};
use super::parallel::{Parallel, each};
use super::prefetch;
use super::quantize::{MIDDLE, QuantizeRows};

/// So many products of u8 and i8 fit in the sum for certain.
const MOST_FEATURES: usize = 65_536;

/// What one product reads.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Inputs<'a> {
    pub(in crate::engine) x: &'a [f32],
    /// I.
    pub(in crate::engine) in_features: usize,
    pub(in crate::engine) integers: &'a [i8],
    pub(in crate::engine) scales: &'a [f32],
    pub(in crate::engine) sums: &'a [i32],
    pub(in crate::engine) plus: Plus<'a>,
}

/// A layer's product with its buffers.
#[derive(Debug)]
pub(in crate::engine) struct Int8Linear {
    shape: Shape,
    dot: Dot,
    /// x in 8 bits, `[tiles, groups]`, and the scale of each row.
    tiles: Vec<Channels>,
    scales: Vec<f32>,
}

impl Int8Linear {
    pub(in crate::engine) fn new(shape: Shape) -> Self {
        Self {
            shape,
            dot: Dot::detect(),
            tiles: Vec::new(),
            scales: Vec::new(),
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
        let rows = inputs.x.len() / inputs.in_features.max(1);
        let panels = self.shape.num_panels();
        let groups = inputs.in_features.div_ceil(GROUP);
        let fits = (1..=MOST_FEATURES).contains(&inputs.in_features)
            && inputs.integers.len() == panels * groups * PANEL * GROUP
            && inputs.scales.len() == panels * PANEL
            && inputs.sums.len() == panels * PANEL
            && self.shape.fits(rows, inputs.plus, out);
        if !fits {
            return Err("Int8Linear: the shapes of x, weight and plus do not match");
        }
        if rows > 0 {
            self.round(inputs, rows, parallel);
            let layer = &*self;
            self.shape.run(&Run { layer, inputs }, out, parallel);
        }
        Ok(())
    }

    /// Rounds x to 8 bits.
    fn round(&mut self, inputs: &Inputs<'_>, rows: usize, parallel: &Parallel<'_>) {
        let width = inputs.in_features;
        let (groups, num_tiles) = (width.div_ceil(GROUP), rows.div_ceil(TILE_ROWS));
        // What is left of earlier rows is never read.
        self.tiles.resize(num_tiles * groups, Channels::default());
        self.scales.resize(rows, 0.0);
        let share = num_tiles.div_ceil(self.shape.threads.max(1));
        let x = inputs.x.chunks(share * TILE_ROWS * width);
        let tiles = self.tiles.chunks_mut(share * groups);
        let parts = x.zip(tiles).zip(self.scales.chunks_mut(share * TILE_ROWS));
        each(parallel, parts, |_, ((x, tiles), scales)| {
            pulp::Arch::new().dispatch(QuantizeTiles {
                x,
                tiles,
                scales,
                width,
            });
        });
    }
}

/// Rows of x f32 `[T, I]` to tiles and the scale of each row.
struct QuantizeTiles<'a> {
    x: &'a [f32],
    tiles: &'a mut [Channels],
    scales: &'a mut [f32],
    /// I.
    width: usize,
}

impl NullaryFnOnce for QuantizeTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let groups = self.width.div_ceil(GROUP);
        let mut row = vec![0; groups * GROUP];
        let x = self.x.chunks(TILE_ROWS * self.width);
        let tiles = self.tiles.chunks_exact_mut(groups);
        for ((x, tile), scales) in x.zip(tiles).zip(self.scales.chunks_mut(TILE_ROWS)) {
            let rows = x.chunks_exact(self.width).zip(scales).enumerate();
            for (index, (x, scale)) in rows {
                QuantizeRows {
                    x,
                    integers: &mut row[..self.width],
                    scales: std::slice::from_mut(scale),
                    width: self.width,
                    middle: MIDDLE,
                }
                .call();
                for (channels, group) in tile.iter_mut().zip(row.as_chunks().0) {
                    channels[index] = *group;
                }
            }
        }
    }
}

/// One run over its inputs.
struct Run<'a> {
    layer: &'a Int8Linear,
    inputs: &'a Inputs<'a>,
}

impl Pass for Run<'_> {
    #[inline(always)]
    fn panel(&self, index: usize, block: &mut Block<'_>) {
        let Self { layer, inputs } = *self;
        let shape = &layer.shape;
        let groups = inputs.in_features.div_ceil(GROUP);
        let channels = index * PANEL..(index + 1) * PANEL;
        // x is around MIDDLE, its integers around 0.
        let mut start = [0; PANEL];
        for (start, sum) in start.iter_mut().zip(&inputs.sums[channels.clone()]) {
            *start = -i32::from(MIDDLE) * sum;
        }
        let mut channel_scales = [0.0; PANEL];
        channel_scales.copy_from_slice(&inputs.scales[channels]);
        let length = groups * GROUP * PANEL;
        let weight = panel(inputs.integers, index, length);
        let mut next = panel(inputs.integers, index + 1, length);
        let columns = shape.columns(&block.panels, index, inputs.plus);

        let mut sums: Sums = [[0; PANEL]; TILE_ROWS];
        for (tile, out) in block.out.chunks_mut(TILE_ROWS).enumerate() {
            let first_row = block.first_row + tile * TILE_ROWS;
            let first_group = first_row / TILE_ROWS * groups;
            let operands = Operands {
                tile: &layer.tiles[first_group..first_group + groups],
                num_rows: out.len(),
                panel: weight,
                start: &start,
                next,
            };
            layer.dot.tile(operands, &mut sums);
            next = prefetch::behind(next, groups);
            for ((row, out), sums) in (first_row..).zip(out).zip(&sums) {
                let products = Row {
                    sums,
                    channel_scales: &channel_scales,
                    scale: layer.scales[row],
                };
                shape.finish(&products, inputs.plus, &columns, row, out);
            }
        }
    }
}

/// A row's exact sums, and what makes f32 of them.
struct Row<'a> {
    sums: &'a [i32; PANEL],
    channel_scales: &'a [f32; PANEL],
    /// Of the row.
    scale: f32,
}

impl Products for Row<'_> {
    #[inline(always)]
    fn plus(&self, channel: usize, plus: f32) -> f32 {
        (to_f32(self.sums[channel]) * self.channel_scales[channel]).mul_add(self.scale, plus)
    }
}

/// Rounded to the nearest where it has more than 24 bits.
#[inline(always)]
#[expect(
    clippy::cast_precision_loss,
    reason = "the sum is exact until here; f32 is what follows"
)]
fn to_f32(sum: i32) -> f32 {
    sum as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::packed::Int8Matrix;

    /// One after the other.
    fn serial(count: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(work);
    }

    struct World {
        rows: usize,
        in_features: usize,
        x: Vec<f32>,
        /// [channels, in]
        weight: Vec<Vec<i8>>,
        scales: Vec<f32>,
        bias: Vec<f32>,
        residual: Vec<f32>,
    }

    fn world(rows: usize, in_features: usize, channels: usize) -> World {
        let number = |index: usize| (index * 7919 % 1013) as f32 / 506.0 - 1.0;
        World {
            rows,
            in_features,
            x: (0..rows * in_features)
                .map(|i| number(i) * (1 + i / in_features) as f32)
                .collect(),
            weight: (0..channels)
                .map(|c| {
                    (0..in_features)
                        .map(|i| (c * 37 + i * 101).to_le_bytes()[0].cast_signed())
                        .collect()
                })
                .collect(),
            scales: (0..channels).map(|c| 0.01 + number(c).abs()).collect(),
            bias: (0..channels).map(|c| number(3 * c)).collect(),
            residual: (0..rows * channels).map(|c| number(5 * c)).collect(),
        }
    }

    /// The formula, in f64 but for the rounding of x.
    fn expected(world: &World, gated: bool, plus: &str) -> Vec<f64> {
        let channels = world.weight.len();
        let mut all = Vec::new();
        for (row, x) in world.x.chunks(world.in_features).enumerate() {
            let largest = x.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            let scale = f64::from(largest / 127.0);
            let y: Vec<f64> = (0..channels)
                .map(|channel| {
                    let product: f64 = x
                        .iter()
                        .zip(&world.weight[channel])
                        .map(|(&x, &w)| {
                            f64::from((x * (127.0 / largest)).round_ties_even()) * f64::from(w)
                        })
                        .sum();
                    product * scale * f64::from(world.scales[channel])
                        + match plus {
                            "bias" => f64::from(world.bias[channel]),
                            "residual" => f64::from(world.residual[row * channels + channel]),
                            _ => 0.0,
                        }
                })
                .collect();
            if gated {
                let (gate, up) = y.split_at(channels / 2);
                all.extend(gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u));
            } else {
                all.extend(y);
            }
        }
        all
    }

    fn computed(world: &World, gated: bool, plus: &str, threads: usize) -> Vec<f32> {
        let matrix = Int8Matrix::from_integers(&world.weight, &world.scales, gated);
        let width = world.weight.len() / if gated { 2 } else { 1 };
        let inputs = Inputs {
            x: &world.x,
            in_features: world.in_features,
            integers: &matrix.integers,
            scales: &matrix.scales,
            sums: &matrix.sums,
            plus: match plus {
                "bias" => Plus::Bias(&world.bias),
                "residual" => Plus::Residual(&world.residual),
                _ => Plus::Nothing,
            },
        };
        let mut out = vec![f32::NAN; world.rows * width];
        let mut layer = Int8Linear::new(Shape {
            width,
            is_gated: gated,
            threads,
        });
        layer.run(&inputs, &mut out, &serial).unwrap();
        out
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
            let world = world(rows, in_features, channels);
            for (gated, plus) in [
                (false, ""),
                (false, "bias"),
                (false, "residual"),
                (true, ""),
                (true, "bias"),
            ] {
                let expected = expected(&world, gated, plus);
                let got = computed(&world, gated, plus, 1);
                for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    assert!(
                        (f64::from(*got) - expected).abs() <= 2e-6 * expected.abs().max(1.0),
                        "{rows} x {in_features} x {channels}, gated {gated}, {plus:?}, {index}: {got}, not {expected}"
                    );
                }
                for threads in [2, 5, 64] {
                    assert!(
                        got == computed(&world, gated, plus, threads),
                        "{threads} threads"
                    );
                }
            }
        }
    }

    #[test]
    fn shapes_that_do_not_match_are_refused() {
        let inputs = Inputs {
            x: &[1.0; 8],
            in_features: 4,
            integers: &[1; 255],
            scales: &[1.0; 64],
            sums: &[0; 64],
            plus: Plus::Nothing,
        };
        let mut layer = Int8Linear::new(Shape {
            width: 64,
            is_gated: false,
            threads: 1,
        });
        assert!(layer.run(&inputs, &mut [0.0; 128], &serial).is_err());
    }
}
