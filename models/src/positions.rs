//! Where the tokens of a prompt stand: M-RoPE's three axes (time, height, width).

use crate::config::ModelConfig;
use crate::image::Grid;
use crate::{Error, Result};

mod vision;

pub use vision::{Slots, VisionPlan, vision_plan};

/// Positions of a sequence's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    /// Time, height and width position of each token, `[3][tokens]`.
    pub ids: [Vec<i64>; 3],
    /// Position, on all three axes, of the first token after the sequence. `next - tokens` is Hugging Face's
    /// `rope_deltas`.
    pub next: i64,
}

/// M-RoPE positions of one unpadded sequence whose images have the given grids, in order.
///
/// Text counts up on all three axes alike. An image of h x w merged patches, starting at position p, has time p, heights
/// p .. p+h and widths p .. p+w; what follows it starts at p + max(h, w).
pub fn mrope(ids: &[u32], grids: &[Grid], config: &ModelConfig) -> Result<Positions> {
    let merge = config.vision.spatial_merge_size;
    let mut axes: [Vec<i64>; 3] = std::array::from_fn(|_| Vec::with_capacity(ids.len()));
    let mut next = 0i64;
    let mut grids_left = grids.iter();
    let mut index = 0;
    while let Some(&id) = ids.get(index) {
        if id == config.tokens.video {
            return Err(Error::Prompt(format!(
                "token {index} is a video token; videos are not supported"
            )));
        }
        if id != config.tokens.image {
            axes.iter_mut().for_each(|axis| axis.push(next));
            next += 1;
            index += 1;
            continue;
        }
        let grid = grids_left.next().ok_or_else(|| {
            Error::Prompt(format!(
                "image tokens from {index} on belong to no image: there are {} images",
                grids.len()
            ))
        })?;
        let (height, width) = (grid.h / merge, grid.w / merge);
        let span = image_tokens(*grid, merge);
        let found = ids[index..]
            .iter()
            .take(span)
            .take_while(|&&id| id == config.tokens.image)
            .count();
        if found < span || span == 0 {
            return Err(Error::Prompt(format!(
                "an image of {span} tokens has {found} at token {index}: its span is cut"
            )));
        }
        for _ in 0..grid.t {
            for row in 0..height as i64 {
                for column in 0..width as i64 {
                    axes[0].push(next);
                    axes[1].push(next + row);
                    axes[2].push(next + column);
                }
            }
        }
        next += height.max(width) as i64;
        index += span;
    }
    if grids_left.next().is_some() {
        return Err(Error::Prompt(format!(
            "fewer image spans than the {} images",
            grids.len()
        )));
    }
    Ok(Positions { ids: axes, next })
}

/// Tokens that an image becomes.
pub fn image_tokens(grid: Grid, merge: usize) -> usize {
    grid.t * (grid.h / merge) * (grid.w / merge)
}

#[cfg(test)]
mod tests;
