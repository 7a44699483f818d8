//! A model small enough for every test, and groups for it: images or none, long and short, one response and many.

use learner::model::{Group, MicroBatch};
use models::config::{ModelConfig, SpecialTokens, TextConfig, VisionConfig};
use models::image::{Grid, Patches};
use tch::Tensor;

/// Ids of the little vocabulary below.
const VISION_START: u32 = 33;
const IMAGE: u32 = 34;
const VISION_END: u32 = 35;

pub(crate) fn config() -> ModelConfig {
    ModelConfig {
        text: TextConfig {
            hidden_size: 32,
            intermediate_size: 48,
            num_layers: 2,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 8,
            vocab_size: 40,
            max_position_embeddings: 1000,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            mrope_section: [1, 1, 2],
        },
        vision: VisionConfig {
            depth: 2,
            hidden_size: 16,
            intermediate_size: 24,
            num_heads: 2,
            head_dim: 8,
            in_channels: 3,
            patch_size: 2,
            temporal_patch_size: 2,
            spatial_merge_size: 2,
            window_size: 8,
            out_hidden_size: 32,
            full_attention_blocks: vec![1],
            tokens_per_second: 2.0,
        },
        tokens: SpecialTokens {
            image: IMAGE,
            video: 36,
            vision_start: VISION_START,
            vision_end: VISION_END,
            vision: None,
            eos: vec![37],
            pad: 38,
        },
        tie_word_embeddings: false,
    }
}

pub(crate) fn image(h: usize, w: usize, seed: usize) -> Patches {
    let values = (0..h * w * 24)
        .map(|i| ((i * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0)
        .collect();
    Patches {
        values,
        grid: Grid { t: 1, h, w },
    }
}

pub(crate) fn prompt(before: &[u32], grids: &[(usize, usize)], after: &[u32]) -> Vec<u32> {
    let mut ids = before.to_vec();
    for (h, w) in grids {
        ids.push(VISION_START);
        ids.extend(std::iter::repeat_n(IMAGE, h * w / 4));
        ids.push(VISION_END);
    }
    ids.extend(after);
    ids
}

pub(crate) struct Sample {
    pub(crate) prompt: Vec<u32>,
    pub(crate) images: Vec<Patches>,
    pub(crate) responses: Vec<Vec<u32>>,
}

pub(crate) fn samples() -> Vec<Sample> {
    vec![
        Sample {
            prompt: prompt(&[1, 2], &[(4, 6)], &[3, 4, 5]),
            images: vec![image(4, 6, 1)],
            responses: vec![vec![6, 7, 8, 37], vec![9], vec![10, 11, 12, 13, 14, 15, 37]],
        },
        Sample {
            prompt: vec![16, 17, 18],
            images: vec![],
            responses: vec![vec![19, 37], vec![20, 21]],
        },
        Sample {
            prompt: prompt(&[22], &[(6, 10), (2, 2)], &[23, 24, 25, 26, 27, 28]),
            images: vec![image(6, 10, 2), image(2, 2, 3)],
            responses: vec![vec![29, 30, 31, 32, 37]],
        },
    ]
}

pub(crate) fn groups(samples: &[Sample]) -> MicroBatch<'_> {
    MicroBatch {
        groups: samples
            .iter()
            .map(|sample| Group {
                prompt_ids: &sample.prompt,
                images: &sample.images,
                responses: sample.responses.iter().map(Vec::as_slice).collect(),
            })
            .collect(),
    }
}

/// One long prompt and one long response among short ones, whose sequences cannot share rows without much padding.
pub(crate) fn uneven_samples() -> Vec<Sample> {
    let text = |seed: usize, len: usize| -> Vec<u32> {
        (0..len).map(|i| ((seed + i * 7) % 32) as u32).collect()
    };
    let mut samples = samples();
    samples.push(Sample {
        prompt: prompt(&text(3, 90), &[(10, 12)], &text(5, 30)),
        images: vec![image(10, 12, 4)],
        responses: vec![text(1, 2), text(2, 60), text(4, 3)],
    });
    samples.extend((0..4).map(|seed| Sample {
        prompt: text(seed, 4 + seed),
        images: vec![],
        responses: vec![text(seed + 9, 1), text(seed + 11, 5)],
    }));
    samples
}

/// Some gradient per response token, zero for every fifth.
pub(crate) fn weight(index: usize) -> f32 {
    if index % 5 == 4 {
        0.0
    } else {
        (index as f32 * 0.7).sin()
    }
}

pub(crate) fn largest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}
