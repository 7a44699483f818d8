//! The libtorch model against the reference values of `PARITY_FIXTURES`: image embeddings, logits, logprobs and entropies,
//! sequence by sequence, with prompts shared, and with all groups in one micro-batch.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test binary"
)]

use learner::logprobs::logprobs;
use learner::model::{Group, MicroBatch, Model, Packed};
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::image::{Grid, ImageProcessor, ImageSettings, Patches, RgbImage};
use tch::{Device, Kind, Tensor, no_grad};
use tests::{Fixtures, PromptCase, Tensors, assert_close};

/// Absolute differences that are allowed: what is usual, and more where the set's own f32 noise is larger.
struct Tolerances {
    embeds: f64,
    logits: f64,
    logprobs: f64,
    batching: f64,
}

impl Tolerances {
    fn of(fixtures: &Fixtures) -> Self {
        let statistics = [
            "logprob_t1.0",
            "logprob_t0.7",
            "entropy_t1.0",
            "entropy_t0.7",
        ];
        let logprobs = fixtures.tolerance(2e-3, &statistics);
        Self {
            embeds: fixtures.tolerance(1e-4, &["image_embeds"]),
            logits: fixtures.tolerance(2e-3, &["logits"]),
            logprobs,
            // Two orders of summation in one implementation.
            batching: logprobs / 20.0,
        }
    }
}

/// What every test here starts from.
struct Setting {
    fixtures: Fixtures,
    prompts: Vec<PromptCase>,
    preprocess: Tensors,
    forward: Tensors,
    model: Model,
    tolerances: Tolerances,
}

/// Runs a test on every set.
fn each(test: impl Fn(&Setting)) {
    Fixtures::each(|fixtures| test(&Setting::open(fixtures))).unwrap();
}

impl Setting {
    fn open(fixtures: Fixtures) -> Self {
        let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
        let checkpoint = Checkpoint::open(&fixtures.model()).unwrap();
        Self {
            prompts: fixtures.prompts().unwrap(),
            preprocess: fixtures.tensors("preprocess").unwrap(),
            forward: fixtures.tensors("forward").unwrap(),
            model: Model::load(&config, &checkpoint, Device::Cpu).unwrap(),
            tolerances: Tolerances::of(&fixtures),
            fixtures,
        }
    }

    /// The reference's own patches of a prompt's images.
    fn patches(&self, prompt: &PromptCase) -> Vec<Patches> {
        let patch = |(name, grid): (&String, &Grid)| Patches {
            values: self
                .preprocess
                .f32(&format!("pil.{name}.pixel_values"))
                .unwrap()
                .data,
            grid: *grid,
        };
        prompt.images.iter().zip(&prompt.grids).map(patch).collect()
    }

    /// Patches of black images of the same size.
    fn black(&self, prompt: &PromptCase) -> Vec<Patches> {
        let settings = ImageSettings::from_dir(&self.fixtures.model()).unwrap();
        let side = u32::try_from(settings.patch_size).unwrap();
        let processor = ImageProcessor::new(settings);
        let black = |grid: &Grid| {
            let (height, width) = (grid.h as u32 * side, grid.w as u32 * side);
            processor
                .patches(&RgbImage {
                    width,
                    height,
                    pixels: vec![0; (width * height * 3) as usize],
                })
                .unwrap()
        };
        prompt.grids.iter().map(black).collect()
    }

    /// Logprobs and entropies of a micro-batch.
    fn read(&self, groups: Vec<Group<'_>>, temperature: f64) -> (Vec<f32>, Vec<f32>) {
        let (logprobs, entropies) =
            logprobs(&self.model, &MicroBatch { groups }, temperature).unwrap();
        (floats(&logprobs), floats(&entropies))
    }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(&tensor.flatten(0, -1)).unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn image_embeddings() {
    each(|setting| {
        let mut worst = 0f64;
        for prompt in setting
            .prompts
            .iter()
            .filter(|prompt| !prompt.images.is_empty())
        {
            let patches = setting.patches(prompt);
            let embeds = no_grad(|| {
                setting
                    .model
                    .image_embeds(&patches.iter().collect::<Vec<_>>())
            })
            .unwrap();
            let name = format!("p{}.image_embeds", prompt.index);
            let expected = setting.forward.f32(&name).unwrap();
            worst = worst.max(assert_close(
                &name,
                &floats(&embeds),
                &expected.data,
                setting.tolerances.embeds,
            ));
        }
        println!("image_embeds: largest difference {worst:.2e}");
    });
}

#[test]
fn full_logits() {
    each(|setting| {
        let mut worst = 0f64;
        for prompt in &setting.prompts {
            let images = setting.patches(prompt);
            let sequence = [prompt.input_ids.as_slice(), &prompt.responses[0]].concat();
            let batch = MicroBatch {
                groups: vec![Group {
                    prompt_ids: &sequence,
                    images: &images,
                    responses: vec![],
                }],
            };
            let packed = Packed::new(&batch, setting.model.config(), Device::Cpu).unwrap();
            let logits = no_grad(|| {
                setting
                    .model
                    .logits(&setting.model.hidden(&batch, &packed).unwrap())
            });
            let name = format!("p{}.r0.full_logits", prompt.index);
            let expected = setting.forward.f32(&name).unwrap();
            worst = worst.max(assert_close(
                &name,
                &floats(&logits),
                &expected.data,
                setting.tolerances.logits,
            ));
        }
        println!("full_logits: largest difference {worst:.2e}");
    });
}

#[test]
fn logprobs_and_entropies() {
    each(|setting| {
        for temperature in ["1.0", "0.7"] {
            let mut worst = [0f64; 2];
            let mut batching = 0f32;
            let t: f64 = temperature.parse().unwrap();
            let images: Vec<Vec<Patches>> = setting
                .prompts
                .iter()
                .map(|prompt| setting.patches(prompt))
                .collect();
            let mut groups = Vec::new();
            let mut one_by_one = (Vec::new(), Vec::new());
            for (prompt, images) in setting.prompts.iter().zip(&images) {
                for (j, response) in prompt.responses.iter().enumerate() {
                    let group = Group {
                        prompt_ids: &prompt.input_ids,
                        images,
                        responses: vec![response],
                    };
                    let (logprobs, entropies) = setting.read(vec![group], t);
                    for (k, (kind, got)) in [("logprob", &logprobs), ("entropy", &entropies)]
                        .into_iter()
                        .enumerate()
                    {
                        let name = format!("p{}.r{j}.{kind}_t{temperature}", prompt.index);
                        let expected = setting.forward.f32(&name).unwrap();
                        worst[k] = worst[k].max(assert_close(
                            &name,
                            got,
                            &expected.data,
                            setting.tolerances.logprobs,
                        ));
                    }
                    one_by_one.0.extend(logprobs);
                    one_by_one.1.extend(entropies);
                }
                let responses = prompt.responses.iter().map(Vec::as_slice).collect();
                groups.push(Group {
                    prompt_ids: &prompt.input_ids,
                    images,
                    responses,
                });
            }
            // All prompts, of different lengths, with and without images, each computed once for its four responses.
            let batched = setting.read(groups, t);
            batching = batching.max(largest_difference(&batched.0, &one_by_one.0));
            batching = batching.max(largest_difference(&batched.1, &one_by_one.1));
            assert!(
                f64::from(batching) < setting.tolerances.batching,
                "batched and single differ by {batching:.2e}"
            );
            println!(
                "t{temperature}: largest difference logprob {:.2e}, entropy {:.2e}; batched to single {batching:.2e}",
                worst[0], worst[1]
            );
        }
    });
}

#[test]
fn blank_forms() {
    each(|setting| {
        let blank = setting.fixtures.tensors("blank").unwrap();
        for form in ["empty", "drop", "black"] {
            let mut worst = 0f64;
            for prompt in &setting.prompts {
                let images = if form == "black" {
                    setting.black(prompt)
                } else {
                    Vec::new()
                };
                let ids = &prompt.blank_ids[form];
                let responses = prompt.responses.iter().map(Vec::as_slice).collect();
                let (logprobs, entropies) = setting.read(
                    vec![Group {
                        prompt_ids: ids,
                        images: &images,
                        responses,
                    }],
                    1.0,
                );
                let mut start = 0;
                for (j, response) in prompt.responses.iter().enumerate() {
                    let range = start..start + response.len();
                    for (kind, got) in [
                        ("logprob", &logprobs[range.clone()]),
                        ("entropy", &entropies[range]),
                    ] {
                        let name = format!("p{}.r{j}.{form}.{kind}_t1.0", prompt.index);
                        let expected = blank.f32(&name).unwrap();
                        worst = worst.max(assert_close(
                            &name,
                            got,
                            &expected.data,
                            setting.tolerances.logprobs,
                        ));
                    }
                    start += response.len();
                }
            }
            println!("{form}: largest difference {worst:.2e}");
        }
    });
}

/// A prompt alone and right-padded in a batch of all prompts: the same last logits, the reference's too.
#[test]
fn last_logits_of_a_batch() {
    each(|setting| {
        let images: Vec<Vec<Patches>> = setting
            .prompts
            .iter()
            .map(|prompt| setting.patches(prompt))
            .collect();
        let group = |(prompt, images)| -> Group<'_> {
            let (prompt, images): (&PromptCase, &Vec<Patches>) = (prompt, images);
            Group {
                prompt_ids: &prompt.input_ids,
                images,
                responses: vec![&prompt.responses[0][..1]],
            }
        };
        let batch = MicroBatch {
            groups: setting.prompts.iter().zip(&images).map(group).collect(),
        };
        let packed = Packed::new(&batch, setting.model.config(), Device::Cpu).unwrap();
        let logits = no_grad(|| {
            let hidden = setting
                .model
                .hidden(&batch, &packed)
                .unwrap()
                .index_select(0, &packed.predictors);
            setting.model.logits(&hidden).to_kind(Kind::Float)
        });
        let expected = setting.forward.f32("batch.last_logits").unwrap();
        let worst = assert_close(
            "batch.last_logits",
            &floats(&logits),
            &expected.data,
            setting.tolerances.logits,
        );
        println!("batch.last_logits: largest difference {worst:.2e}");
    });
}
