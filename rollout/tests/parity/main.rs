//! The ONNX engine against the reference values of `PARITY_FIXTURES` (default: tests/data/qwen2_5_vl), within the
//! tolerances that the fixtures' README gives for f32.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails where it stands; its numbers are small"
)]
#![allow(missing_docs, reason = "a test binary")]

mod greedy;
mod refusals;
mod setup;
mod steady;

use std::collections::BTreeMap;

use rollout::sampler::Distribution;
use setup::{Sequence, Setup, Start};
use tests::compare::assert_close;
use tests::fixtures::PromptCase;
use tests::tensors::Tensors;

#[test]
fn image_embeddings_match_one_prompt_or_all_at_once() {
    Setup::each(|mut setup| {
        let forward = setup.fixtures.tensors("forward").unwrap();
        let prompts: Vec<PromptCase> = setup
            .prompts
            .iter()
            .filter(|prompt| !prompt.images.is_empty())
            .cloned()
            .collect();
        let (mut all_patches, mut all_grids, mut all_expected) =
            (Vec::new(), Vec::new(), Vec::new());
        for prompt in &prompts {
            let patches = setup.patches(prompt);
            let got = setup.model.encode_images(&patches, &prompt.grids).unwrap();
            let expected = forward
                .f32(&format!("p{}.image_embeds", prompt.index))
                .unwrap()
                .data;
            let worst = assert_close(&prompt.name, &got, &expected, embeds_tolerance(&setup));
            println!("{}: image embeddings within {worst:.1e}", prompt.name);
            all_patches.extend(patches);
            all_grids.extend_from_slice(&prompt.grids);
            all_expected.extend(expected);
        }
        let got = setup.model.encode_images(&all_patches, &all_grids).unwrap();
        assert_close(
            "all images in one call",
            &got,
            &all_expected,
            embeds_tolerance(&setup),
        );
        assert!(setup.model.encode_images(&[], &[]).unwrap().is_empty());
    });
}

#[test]
fn logits_of_every_token_match() {
    Setup::each(|mut setup| {
        let forward = setup.fixtures.tensors("forward").unwrap();
        for prompt in setup.prompts.clone() {
            let name = format!("p{}.r0", prompt.index);
            let sequence = setup.start(&prompt).with_response(&prompt.responses[0]);
            let positions = forward.i64(&format!("{name}.position_ids")).unwrap();
            assert_eq!(
                sequence.positions.concat(),
                positions.data,
                "{name}: positions"
            );
            let got = setup.forward(&[sequence]).remove(0).concat();
            let expected = forward.f32(&format!("{name}.full_logits")).unwrap();
            let worst = assert_close(&name, &got, &expected.data, logits_tolerance(&setup));
            println!("{name}: logits within {worst:.1e}");
        }
    });
}

#[test]
fn a_ragged_batch_of_prompts_has_the_same_last_logits() {
    Setup::each(|mut setup| {
        let forward = setup.fixtures.tensors("forward").unwrap();
        let prompts = setup.prompts.clone();
        let starts: Vec<Sequence> = prompts
            .iter()
            .map(|prompt| setup.start(prompt).sequence)
            .collect();
        let last: Vec<f32> = setup
            .forward(&starts)
            .into_iter()
            .flat_map(|mut logits| logits.pop().unwrap())
            .collect();
        let expected = forward.f32("batch.last_logits").unwrap();
        let worst = assert_close(
            "last logits",
            &last,
            &expected.data,
            logits_tolerance(&setup),
        );
        println!(
            "last logits of {} prompts in one batch within {worst:.1e}",
            prompts.len()
        );
    });
}

#[test]
fn statistics_of_each_response_match_alone_and_in_one_batch() {
    Setup::each(|mut setup| {
        let forward = setup.fixtures.tensors("forward").unwrap();
        let (mut names, mut starts, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for prompt in setup.prompts.clone() {
            let start = setup.start(&prompt);
            for (index, response) in prompt.responses.iter().enumerate() {
                names.push(format!("p{}.r{index}", prompt.index));
                sequences.push(start.with_response(response));
                starts.push(start.clone());
            }
        }
        let batched = setup.forward(&sequences);
        let mut worst = Worst::new(&setup);
        for (index, name) in names.iter().enumerate() {
            let alone = setup.forward(&sequences[index..=index]).remove(0);
            for logits in [&alone, &batched[index]] {
                check_statistics(
                    &forward,
                    name,
                    &starts[index],
                    &sequences[index],
                    logits,
                    &mut worst,
                );
            }
        }
        println!(
            "{} responses, largest differences: {:#?}",
            names.len(),
            worst.by_kind
        );
    });
}

#[test]
fn blanked_prompts_match() {
    Setup::each(|mut setup| {
        let forward = setup.fixtures.tensors("forward").unwrap();
        let blank = setup.fixtures.tensors("blank").unwrap();
        let mut worst = Worst::new(&setup);
        for prompt in setup.prompts.clone() {
            for (form, ids) in &prompt.blank_ids {
                let keeps_images = form == "black";
                let (embeds, grids) = if keeps_images {
                    let patches = setup.black_patches(&prompt);
                    (
                        setup.model.encode_images(&patches, &prompt.grids).unwrap(),
                        prompt.grids.clone(),
                    )
                } else {
                    (Vec::new(), Vec::new())
                };
                let start = Start::new(&setup.config, ids, &grids, embeds);
                let sequences: Vec<Sequence> = prompt
                    .responses
                    .iter()
                    .map(|response| start.with_response(response))
                    .collect();
                let logits = setup.forward(&sequences);
                for (index, sequence) in sequences.iter().enumerate() {
                    let response = format!("p{}.r{index}", prompt.index);
                    let name = format!("{response}.{form}");
                    let with_image = forward
                        .f32(&format!("{response}.logprob_t1.0"))
                        .unwrap()
                        .data;
                    check_blank(
                        &blank,
                        &name,
                        &start,
                        sequence,
                        &logits[index],
                        &with_image,
                        &mut worst,
                    );
                }
            }
        }
        println!("largest differences: {:#?}", worst.by_kind);
    });
}

fn embeds_tolerance(setup: &Setup) -> f64 {
    setup.fixtures.tolerance(1e-4, &["image_embeds"])
}

fn logits_tolerance(setup: &Setup) -> f64 {
    setup.fixtures.tolerance(2e-3, &["logits"])
}

/// Largest differences of log-probabilities and entropies.
struct Worst {
    by_kind: BTreeMap<String, f64>,
    tolerance: f64,
    /// A nucleus has exactly the reference's size where its edge is this far from p.
    safe_margin: f64,
}

impl Worst {
    fn new(setup: &Setup) -> Self {
        let statistics = [
            "logprob_t1.0",
            "logprob_t0.7",
            "entropy_t1.0",
            "entropy_t0.7",
        ];
        let margins = ["nucleus_margin_p0.95", "nucleus_margin_p0.99"];
        Self {
            by_kind: BTreeMap::new(),
            tolerance: setup.fixtures.tolerance(2e-3, &statistics),
            safe_margin: setup.fixtures.tolerance(3e-5, &margins),
        }
    }

    fn note(&mut self, kind: &str, difference: f64) {
        let entry = self.by_kind.entry(kind.to_owned()).or_insert(0.0);
        *entry = entry.max(difference);
    }
}

/// Compares what the tensor `{name}.{kind}` holds, where the file has it.
fn compare(file: &Tensors, name: &str, kind: &str, got: &[f64], worst: &mut Worst) {
    let full_name = format!("{name}.{kind}");
    if !file.has(&full_name) {
        return;
    }
    let got: Vec<f32> = got.iter().map(|&value| value as f32).collect();
    let difference = assert_close(
        &full_name,
        &got,
        &file.f32(&full_name).unwrap().data,
        worst.tolerance,
    );
    worst.note(kind, difference);
}

/// The response's tokens, each with the logits that predict it.
fn predictions<'a>(
    start: &Start,
    sequence: &'a Sequence,
    logits: &'a [Vec<f32>],
) -> impl Iterator<Item = (usize, &'a [f32])> {
    let prompt_length = start.sequence.ids.len();
    let tokens = sequence.ids[prompt_length..].iter().map(|&id| id as usize);
    tokens.zip(logits[prompt_length - 1..].iter().map(Vec::as_slice))
}

fn check_statistics(
    file: &Tensors,
    name: &str,
    start: &Start,
    sequence: &Sequence,
    logits: &[Vec<f32>],
    worst: &mut Worst,
) {
    let mut distribution = Distribution::new();
    for temperature in [1.0, 0.7] {
        let (mut logprobs, mut entropies) = (Vec::new(), Vec::new());
        for (token, row) in predictions(start, sequence, logits) {
            distribution.load(row, temperature).unwrap();
            logprobs.push(distribution.logprob(row[token]));
            entropies.push(distribution.full_entropy(row));
        }
        compare(
            file,
            name,
            &format!("logprob_t{temperature:?}"),
            &logprobs,
            worst,
        );
        compare(
            file,
            name,
            &format!("entropy_t{temperature:?}"),
            &entropies,
            worst,
        );
    }
    for p in [0.95, 0.99] {
        let (mut renormalised, mut raw, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        let expected_sizes = file.i32(&format!("{name}.nucleus_size_p{p}")).unwrap().data;
        let margins = file
            .f32(&format!("{name}.nucleus_margin_p{p}"))
            .unwrap()
            .data;
        for (_, row) in predictions(start, sequence, logits) {
            distribution.load(row, 1.0).unwrap();
            let nucleus = distribution.nucleus(row, p);
            renormalised.push(nucleus.entropy_renormalised);
            raw.push(nucleus.entropy_raw);
            sizes.push(nucleus.size);
        }
        assert_eq!(sizes.len(), expected_sizes.len(), "{name}");
        for (index, &size) in sizes.iter().enumerate() {
            if f64::from(margins[index]) > worst.safe_margin {
                assert_eq!(
                    size, expected_sizes[index] as usize,
                    "{name}: size of nucleus {p} at {index}"
                );
            } else {
                // One token more or less at the edge: the entropies of that token cannot be compared.
                let at = |kind: &str| {
                    f64::from(file.f32(&format!("{name}.{kind}_p{p}")).unwrap().data[index])
                };
                renormalised[index] = at("nucleus_entropy_renorm");
                raw[index] = at("nucleus_entropy_raw");
            }
        }
        compare(
            file,
            name,
            &format!("nucleus_entropy_renorm_p{p}"),
            &renormalised,
            worst,
        );
        compare(
            file,
            name,
            &format!("nucleus_entropy_raw_p{p}"),
            &raw,
            worst,
        );
    }
}

fn check_blank(
    file: &Tensors,
    name: &str,
    start: &Start,
    sequence: &Sequence,
    logits: &[Vec<f32>],
    with_image: &[f32],
    worst: &mut Worst,
) {
    let mut distribution = Distribution::new();
    let (mut logprobs, mut entropies, mut differences) = (Vec::new(), Vec::new(), Vec::new());
    for ((token, row), &with_image) in predictions(start, sequence, logits).zip(with_image) {
        distribution.load(row, 1.0).unwrap();
        let logprob = distribution.logprob(row[token]);
        logprobs.push(logprob);
        entropies.push(distribution.full_entropy(row));
        differences.push((f64::from(with_image) - logprob).abs());
    }
    compare(file, name, "logprob_t1.0", &logprobs, worst);
    compare(file, name, "abs_dlogp", &differences, worst);
    compare(file, name, "entropy_t1.0", &entropies, worst);
    // The blank file has no margins: a nucleus on its edge may have one token more or less.
    for p in [0.95, 0.99] {
        let kind = format!("nucleus_entropy_renorm_p{p}");
        let full_name = format!("{name}.{kind}");
        if !file.has(&full_name) {
            continue;
        }
        let mut expected = file.f32(&full_name).unwrap().data;
        let mut got = Vec::new();
        for (index, (_, row)) in predictions(start, sequence, logits).enumerate() {
            distribution.load(row, 1.0).unwrap();
            let nucleus = distribution.nucleus(row, p);
            if nucleus.margin <= worst.safe_margin {
                expected[index] = nucleus.entropy_renormalised as f32;
            }
            got.push(nucleus.entropy_renormalised as f32);
        }
        let difference = assert_close(&full_name, &got, &expected, worst.tolerance);
        worst.note(&kind, difference);
    }
}
