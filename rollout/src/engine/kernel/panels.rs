//! The output of a matrix product whose weight lies in panels: how threads share it, and what follows the product.
//!
//! `// T rows, O columns: output channels or, gated, half of them`

use std::ops::Range;

use models::checkpoint::PANEL;
use pulp::NullaryFnOnce;

use super::parallel::{Parallel, each};
use super::silu::silu_mul;

/// Rows of a tile: with the panel's columns they fill the registers.
pub(in crate::engine) const TILE_ROWS: usize = 6;

/// What is added to a product.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) enum Plus<'a> {
    Nothing,
    /// `[channels]`.
    Bias(&'a [f32]),
    /// `[T, O]`.
    Residual(&'a [f32]),
}

/// The columns of a product, and who computes them.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Shape {
    /// O.
    pub(in crate::engine) width: usize,
    /// Whether half of the channels are gates: see [`models::checkpoint::PackedMatrix`].
    pub(in crate::engine) is_gated: bool,
    /// At most so many at once.
    pub(in crate::engine) threads: usize,
}

/// Rows and panels that one thread works on.
pub(in crate::engine) struct Block<'a> {
    pub(in crate::engine) first_row: usize,
    pub(in crate::engine) panels: Range<usize>,
    /// The panels' columns of each row.
    pub(in crate::engine) out: Vec<&'a mut [f32]>,
}

/// The columns that one panel makes.
pub(in crate::engine) struct Columns {
    /// In the output.
    all: Range<usize>,
    /// In the rows of the block.
    in_block: Range<usize>,
    /// Of the panel's channels as they lie in it; zeros where there is none.
    bias: [f32; PANEL],
}

/// A product, panel by panel.
pub(in crate::engine) trait Pass: Sync {
    /// One panel's columns of the block's rows; `inline(always)`, see `lanes`.
    fn panel(&self, index: usize, block: &mut Block<'_>);
}

/// One thread's part.
struct Job<'a, P> {
    pass: &'a P,
    block: Block<'a>,
}

impl<P: Pass> NullaryFnOnce for Job<'_, P> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        for panel in self.block.panels.clone() {
            self.pass.panel(panel, &mut self.block);
        }
    }
}

/// A row's products with the channels of a panel.
pub(in crate::engine) trait Products {
    /// The product with a channel, and `plus`.
    fn plus(&self, channel: usize, plus: f32) -> f32;
}

impl Shape {
    /// Columns that a panel makes.
    fn panel_width(&self) -> usize {
        if self.is_gated { PANEL / 2 } else { PANEL }
    }

    pub(in crate::engine) fn num_panels(&self) -> usize {
        self.width.div_ceil(self.panel_width())
    }

    /// Whether output and addend are those of `rows` rows.
    pub(in crate::engine) fn fits(&self, rows: usize, plus: Plus<'_>, out: &[f32]) -> bool {
        let channels = if self.is_gated { 2 } else { 1 } * self.width;
        self.width > 0
            && out.len() == rows * self.width
            && match plus {
                Plus::Nothing => true,
                Plus::Bias(bias) => bias.len() == channels,
                Plus::Residual(residual) => residual.len() == out.len() && !self.is_gated,
            }
    }

    /// The whole product, into `out` `[T, O]`.
    pub(in crate::engine) fn run(
        &self,
        pass: &impl Pass,
        out: &mut [f32],
        parallel: &Parallel<'_>,
    ) {
        each(parallel, self.blocks(out).into_iter(), |_, block| {
            pulp::Arch::new().dispatch(Job { pass, block });
        });
    }

    /// A few blocks per thread, whole tiles each: columns first, whose part of the weight is then read once, and rows where
    /// columns are few.
    fn blocks<'a>(&self, out: &'a mut [f32]) -> Vec<Block<'a>> {
        let (rows, panels) = (out.len() / self.width, self.num_panels());
        let wanted = 4 * self.threads.max(1);
        let block_panels = (panels / wanted).max(1);
        let block_rows = rows.div_ceil(wanted.div_ceil(panels)).max(1);
        let block_rows = block_rows.next_multiple_of(TILE_ROWS);
        let mut blocks = Vec::new();
        for (part, out) in out.chunks_mut(block_rows * self.width).enumerate() {
            let first = blocks.len();
            for panel in (0..panels).step_by(block_panels) {
                blocks.push(Block {
                    first_row: part * block_rows,
                    panels: panel..panels.min(panel + block_panels),
                    out: Vec::new(),
                });
            }
            for row in out.chunks_exact_mut(self.width) {
                let columns = row.chunks_mut(block_panels * self.panel_width());
                for (block, columns) in blocks[first..].iter_mut().zip(columns) {
                    block.out.push(columns);
                }
            }
        }
        blocks
    }

    /// The columns of a panel in a block of some `panels`.
    pub(in crate::engine) fn columns(
        &self,
        panels: &Range<usize>,
        panel: usize,
        plus: Plus<'_>,
    ) -> Columns {
        let first = panel * self.panel_width();
        let all = first..self.width.min(first + self.panel_width());
        let in_block = (panel - panels.start) * self.panel_width();
        let mut of_panel = [0.0; PANEL];
        if let Plus::Bias(bias) = plus {
            of_panel[..all.len()].copy_from_slice(&bias[all.clone()]);
            if self.is_gated {
                let up = self.width + all.start..self.width + all.end;
                of_panel[PANEL / 2..][..all.len()].copy_from_slice(&bias[up]);
            }
        }
        Columns {
            in_block: in_block..in_block + all.len(),
            all,
            bias: of_panel,
        }
    }

    /// What follows the product: a panel's columns of row `row`, in the row `out` of its block.
    #[inline(always)]
    pub(in crate::engine) fn finish(
        &self,
        products: &impl Products,
        plus: Plus<'_>,
        columns: &Columns,
        row: usize,
        out: &mut [f32],
    ) {
        let out = &mut out[columns.in_block.clone()];
        if self.is_gated {
            gated(products, &columns.bias, out);
        } else if let Plus::Residual(residual) = plus {
            let row = row * self.width;
            let residual = &residual[row + columns.all.start..row + columns.all.end];
            added(products, residual, out);
        } else {
            added(products, &columns.bias[..out.len()], out);
        }
    }
}

/// As many columns as `out` has, `plus` added.
#[inline(always)]
fn added(products: &impl Products, plus: &[f32], out: &mut [f32]) {
    if let (Ok(plus), Ok(out)) = (
        <&[f32; PANEL]>::try_from(plus),
        <&mut [f32; PANEL]>::try_from(&mut *out),
    ) {
        // A whole panel: lengths that the compiler knows.
        for column in 0..PANEL {
            out[column] = products.plus(column, plus[column]);
        }
        return;
    }
    for (column, (out, &plus)) in out.iter_mut().zip(plus).enumerate() {
        *out = products.plus(column, plus);
    }
}

/// As many columns as `out` has, each a gate and its partner.
#[inline(always)]
fn gated(products: &impl Products, bias: &[f32; PANEL], out: &mut [f32]) {
    let value = |column: usize| {
        let up = PANEL / 2 + column;
        silu_mul(
            products.plus(column, bias[column]),
            products.plus(up, bias[up]),
        )
    };
    if let Ok(out) = <&mut [f32; PANEL / 2]>::try_from(&mut *out) {
        for (column, out) in out.iter_mut().enumerate() {
            *out = value(column);
        }
        return;
    }
    for (column, out) in out.iter_mut().enumerate() {
        *out = value(column);
    }
}

/// Panel `index` of a weight with `length` numbers per panel; nothing behind the last one.
pub(in crate::engine) fn panel<T>(weight: &[T], index: usize, length: usize) -> &[T] {
    weight
        .get(index * length..(index + 1) * length)
        .unwrap_or_default()
}
