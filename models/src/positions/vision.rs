//! The order in which the vision tower sees its patches: window by window, and what each window attends to.

// N patches, W windows (or images), L patches of the longest of them, M merge size

use crate::config::VisionConfig;
use crate::image::Grid;

/// How the patches of all images of one call are ordered and cut. `N` patches; a *group* is the `merge^2` patches that
/// become one token, adjacent both in `pixel_values` and in window order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisionPlan {
    /// Row of `pixel_values` at each slot of the window order, `[N]`.
    pub patch_order: Vec<i64>,
    /// Row and column of the patch in its image, `[N][2]`, in window order.
    pub rope_positions: Vec<[i64; 2]>,
    /// Group at each group slot of the window order, `[N / merge^2]` (Hugging Face's `window_index`).
    pub window_index: Vec<i64>,
    /// Row of the merged output for each token in image order, `[N / merge^2]`: the inverse of `window_index`.
    pub token_order: Vec<i64>,
    /// Patches of each attention window, in window order; none is 0, they sum to N.
    pub window_lengths: Vec<usize>,
    /// Patches of each image (of each frame, had it several), in window order; they sum to N.
    pub image_lengths: Vec<usize>,
}

/// Sequences of different lengths laid out as a rectangle `[W, L]` for batched attention, and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// Index into the N patches for each cell, `[W * L]`; padding points at 0.
    pub slots: Vec<i64>,
    /// Whether the cell holds a patch, `[W * L]`.
    pub mask: Vec<bool>,
    /// Flat cell of each patch, `[N]`.
    pub unslot: Vec<i64>,
    /// Cells per row, L.
    pub width: usize,
}

impl VisionPlan {
    /// Number N of patches.
    pub fn num_patches(&self) -> usize {
        self.patch_order.len()
    }

    /// The rectangle for `window_lengths` or `image_lengths`.
    pub fn padded(lengths: &[usize]) -> Slots {
        let width = lengths.iter().copied().max().unwrap_or(0);
        let (mut slots, mut mask, mut unslot) = (Vec::new(), Vec::new(), Vec::new());
        let mut patch = 0;
        for &length in lengths {
            for column in 0..width {
                let real = column < length;
                if real {
                    unslot.push(slots.len() as i64);
                }
                slots.push(if real { patch } else { 0 });
                mask.push(real);
                patch += i64::from(real);
            }
        }
        Slots {
            slots,
            mask,
            unslot,
            width,
        }
    }
}

/// The plan for images of the given grids, whose patches follow each other in `pixel_values`.
///
/// A grid's `h` and `w` must be multiples of the merge size, as [`crate::image::ImageProcessor`] makes them.
pub fn vision_plan(grids: &[Grid], config: &VisionConfig) -> VisionPlan {
    let merge = config.spatial_merge_size;
    let unit = merge * merge;
    let window = config.window_size / merge / config.patch_size; // side of a window, in groups
    let mut plan = VisionPlan {
        patch_order: Vec::new(),
        rope_positions: Vec::new(),
        window_index: Vec::new(),
        token_order: Vec::new(),
        window_lengths: Vec::new(),
        image_lengths: Vec::new(),
    };
    let mut first_group = 0; // of the frame, among the groups of all images
    for grid in grids {
        let (height, width) = (grid.h / merge, grid.w / merge); // in groups
        for _ in 0..grid.t {
            for top in (0..height).step_by(window) {
                for left in (0..width).step_by(window) {
                    let (bottom, right) = (height.min(top + window), width.min(left + window));
                    plan.window_lengths
                        .push((bottom - top) * (right - left) * unit);
                    for row in top..bottom {
                        for column in left..right {
                            plan.push_group(
                                first_group + row * width + column,
                                [row, column],
                                merge,
                            );
                        }
                    }
                }
            }
            plan.image_lengths.push(height * width * unit);
            first_group += height * width;
        }
    }
    plan.token_order = vec![0; plan.window_index.len()];
    for (slot, &group) in (0i64..).zip(&plan.window_index) {
        if let Some(token) = usize::try_from(group)
            .ok()
            .and_then(|group| plan.token_order.get_mut(group))
        {
            *token = slot;
        }
    }
    plan
}

impl VisionPlan {
    /// Appends the patches of one group, which stands at `[row, column]` (in groups) of its image.
    fn push_group(&mut self, group: usize, [row, column]: [usize; 2], merge: usize) {
        self.window_index.push(group as i64);
        for y in 0..merge {
            for x in 0..merge {
                self.patch_order
                    .push((group * merge * merge + y * merge + x) as i64);
                self.rope_positions
                    .push([(row * merge + y) as i64, (column * merge + x) as i64]);
            }
        }
    }
}
