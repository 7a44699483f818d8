#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails where it stands; its numbers are small"
)]
use proptest::prelude::*;

use super::*;
use crate::config::{ModelConfig, SpecialTokens, TextConfig, VisionConfig};

const IMAGE: u32 = 1000;

fn config(merge: usize, window: usize) -> ModelConfig {
    let patch_size = 14;
    ModelConfig {
        text: TextConfig {
            hidden_size: 8,
            intermediate_size: 8,
            num_layers: 1,
            num_heads: 1,
            num_kv_heads: 1,
            head_dim: 8,
            vocab_size: 2000,
            max_position_embeddings: 4096,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            mrope_section: [2, 1, 1],
        },
        vision: VisionConfig {
            depth: 1,
            hidden_size: 8,
            intermediate_size: 8,
            num_heads: 1,
            head_dim: 8,
            in_channels: 3,
            patch_size,
            temporal_patch_size: 2,
            spatial_merge_size: merge,
            window_size: window * merge * patch_size,
            out_hidden_size: 8,
            full_attention_blocks: vec![],
            tokens_per_second: 2.0,
        },
        tokens: SpecialTokens {
            image: IMAGE,
            video: 1001,
            vision_start: 1002,
            vision_end: 1003,
            vision: None,
            eos: vec![1004],
            pad: 1005,
        },
        tie_word_embeddings: true,
    }
}

/// Grids in merged patches, with the length of the text before each; then the text at the end.
fn prompts() -> impl Strategy<Value = (usize, Vec<(usize, [usize; 2])>, usize)> {
    let image = (0usize..6, [1usize..7, 1usize..7]);
    (1usize..4, prop::collection::vec(image, 0..4), 0usize..6)
}

fn build(merge: usize, images: &[(usize, [usize; 2])], tail: usize) -> (Vec<u32>, Vec<Grid>) {
    let mut ids = Vec::new();
    let mut grids = Vec::new();
    for &(text, [height, width]) in images {
        ids.extend(std::iter::repeat_n(7, text));
        ids.extend(std::iter::repeat_n(IMAGE, height * width));
        grids.push(Grid {
            t: 1,
            h: height * merge,
            w: width * merge,
        });
    }
    ids.extend(std::iter::repeat_n(7, tail));
    (ids, grids)
}

/// One token at a time, each from what stands before it: an image token's place in its image from a running count, the
/// next start from the largest position so far.
fn slow_mrope(ids: &[u32], grids: &[Grid], merge: usize) -> (Vec<[i64; 3]>, i64) {
    let mut positions: Vec<[i64; 3]> = Vec::new();
    let mut image = 0;
    let mut place = 0; // in the image
    let mut start = 0;
    for &id in ids {
        let largest = positions
            .iter()
            .flatten()
            .max()
            .map_or(0, |largest| largest + 1);
        if id != IMAGE {
            positions.push([largest; 3]);
            continue;
        }
        if place == 0 {
            start = largest;
        }
        let (height, width) = (grids[image].h / merge, grids[image].w / merge);
        positions.push([
            start,
            start + (place / width) as i64,
            start + (place % width) as i64,
        ]);
        place += 1;
        if place == height * width {
            (place, image) = (0, image + 1);
        }
    }
    let next = positions
        .iter()
        .flatten()
        .max()
        .map_or(0, |largest| largest + 1);
    (positions, next)
}

/// Hugging Face's window index: pad the grid with -100 to whole windows, cut, drop the padding.
fn slow_window_index(grids: &[Grid], merge: usize, window: usize) -> (Vec<i64>, Vec<usize>) {
    let (mut index, mut lengths) = (Vec::new(), Vec::new());
    let mut first = 0;
    for grid in grids {
        let (height, width) = (grid.h / merge, grid.w / merge);
        let rows = height + window - height % window;
        let columns = width + window - width % window;
        let cell = |row: usize, column: usize| {
            if row < height && column < width {
                first + (row * width + column) as i64
            } else {
                -100
            }
        };
        for top in 0..rows / window {
            for left in 0..columns / window {
                let cells = (0..window * window)
                    .map(|place| {
                        cell(
                            top * window + place / window,
                            left * window + place % window,
                        )
                    })
                    .filter(|&cell| cell != -100);
                let before = index.len();
                index.extend(cells);
                if index.len() > before {
                    lengths.push((index.len() - before) * merge * merge);
                }
            }
        }
        first += (height * width) as i64;
    }
    (index, lengths)
}

proptest! {
    #[test]
    fn mrope_equals_the_slow_form((merge, images, tail) in prompts()) {
        let (ids, grids) = build(merge, &images, tail);
        let got = mrope(&ids, &grids, &config(merge, 4)).unwrap();
        let (expected, next) = slow_mrope(&ids, &grids, merge);
        for (axis, got) in got.ids.iter().enumerate() {
            let expected: Vec<i64> = expected.iter().map(|position| position[axis]).collect();
            prop_assert_eq!(got, &expected);
        }
        prop_assert_eq!(got.next, next);
    }

    #[test]
    fn a_cut_or_foreign_image_span_is_refused((merge, images, tail) in prompts(), cut in 0usize..200) {
        let (ids, grids) = build(merge, &images, tail);
        let config = config(merge, 4);
        let cut = cut.min(ids.len());
        if ids[cut..].contains(&IMAGE) {
            prop_assert!(mrope(&ids[..cut], &grids, &config).is_err());
        }
        if !grids.is_empty() {
            prop_assert!(mrope(&ids, &grids[1..], &config).is_err());
        }
    }

    #[test]
    fn window_order_equals_the_slow_form((merge, images, _) in prompts(), window in 1usize..5) {
        let (_, grids) = build(merge, &images, 0);
        let plan = vision_plan(&grids, &config(merge, window).vision);
        let (index, lengths) = slow_window_index(&grids, merge, window);
        prop_assert_eq!(&plan.window_index, &index);
        prop_assert_eq!(&plan.window_lengths, &lengths);
        let patches: Vec<usize> = grids.iter().map(Grid::num_patches).collect();
        prop_assert_eq!(&plan.image_lengths, &patches);

        // token_order undoes window_index, patch_order is a permutation that keeps groups together.
        for (token, &slot) in plan.token_order.iter().enumerate() {
            prop_assert_eq!(plan.window_index[slot as usize], token as i64);
        }
        let unit = merge * merge;
        for (slot, &row) in plan.patch_order.iter().enumerate() {
            prop_assert_eq!(row as usize, plan.window_index[slot / unit] as usize * unit + slot % unit);
        }
        // Undone, the rotary positions walk each image group by group, row by row within a group.
        let mut by_row = vec![[-1; 2]; plan.num_patches()];
        for (slot, &row) in plan.patch_order.iter().enumerate() {
            by_row[row as usize] = plan.rope_positions[slot];
        }
        let mut expected = Vec::new();
        for grid in &grids {
            for group in 0..grid.num_patches() / unit {
                let (top, left) = (group / (grid.w / merge) * merge, group % (grid.w / merge) * merge);
                for place in 0..unit {
                    expected.push([(top + place / merge) as i64, (left + place % merge) as i64]);
                }
            }
        }
        prop_assert_eq!(by_row, expected);
    }

    #[test]
    fn padding_and_back(lengths in prop::collection::vec(1usize..9, 0..6)) {
        let slots = VisionPlan::padded(&lengths);
        prop_assert_eq!(slots.slots.len(), lengths.len() * slots.width);
        prop_assert_eq!(slots.mask.iter().filter(|&&real| real).count(), lengths.iter().sum::<usize>());
        for (patch, &cell) in slots.unslot.iter().enumerate() {
            prop_assert!(slots.mask[cell as usize]);
            prop_assert_eq!(slots.slots[cell as usize], patch as i64);
        }
        for (row, &length) in lengths.iter().enumerate() {
            let row = &slots.mask[row * slots.width..(row + 1) * slots.width];
            prop_assert!(row.iter().enumerate().all(|(column, &real)| real == (column < length)));
        }
    }
}

#[test]
fn videos_are_refused() {
    let error = mrope(&[7, 1001], &[], &config(2, 4))
        .unwrap_err()
        .to_string();
    assert!(error.contains("token 1 is a video token"), "{error}");
}
