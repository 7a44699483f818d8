//! Groups that share their prompt give the same logprobs and the same gradients as every sequence alone.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test binary"
)]

use learner::logprobs::PolicyLogprobs;
use learner::model::{Group, MicroBatch, Model, Packed, init};
use tch::{Device, Kind, Tensor};
use tiny::{Sample, config, groups, image, largest, prompt, samples, uneven_samples, weight};

mod tiny;

fn gradients(model: &Model) -> Vec<(String, Tensor)> {
    model
        .parameters()
        .iter()
        .map(|parameter| (parameter.spec.name.clone(), parameter.tensor.grad().copy()))
        .collect()
}

/// Groups of any shape: with and without images, of one response and of several.
fn random_samples(seed: u64) -> Vec<Sample> {
    let mut state = seed;
    let mut draw = |below: u64| -> usize {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(seed | 1);
        usize::try_from((state >> 33) % below).unwrap()
    };
    let num_groups = 1 + draw(4);
    let group = |index: usize| {
        // The vision tower has something to see in any batch.
        let num_images = if index == 0 { 1 + draw(2) } else { draw(3) };
        let grids: Vec<(usize, usize)> = (0..num_images)
            .map(|_| (2 + 2 * draw(4), 2 + 2 * draw(4)))
            .collect();
        let mut text = |longest: u64| -> Vec<u32> {
            let len = 1 + draw(longest);
            (0..len).map(|_| u32::try_from(draw(32)).unwrap()).collect()
        };
        let (before, after) = (text(5), text(25));
        let num_responses = text(5).len();
        Sample {
            prompt: prompt(&before, &grids, &after),
            images: (0..)
                .zip(&grids)
                .map(|(number, &(h, w))| image(h, w, 10 * index + number))
                .collect(),
            responses: (0..num_responses).map(|_| text(20)).collect(),
        }
    };
    (0..num_groups).map(group).collect()
}

#[test]
fn random_batches_equal_single_sequences() {
    for seed in 0..6 {
        assert_equal_to_single_sequences(&random_samples(seed));
    }
}

#[test]
fn packed_groups_equal_single_sequences() {
    assert_equal_to_single_sequences(&samples());
}

#[test]
fn long_and_short_sequences_equal_single_ones_and_pad_little() {
    let samples = uneven_samples();
    assert_equal_to_single_sequences(&samples);

    let batch = groups(&samples);
    let packed = Packed::new(&batch, &config(), Device::Cpu).unwrap();
    let num_tokens: usize = batch.groups.iter().map(Group::num_tokens).sum();
    assert_eq!(packed.token_ids.size1().unwrap() as usize, num_tokens);
    let slots: i64 = packed
        .reach
        .rows()
        .iter()
        .map(|rows| rows.num_rows * rows.num_queries)
        .sum();
    let in_one_set = (samples.len() * 148
        + batch
            .groups
            .iter()
            .map(|group| group.responses.len() * 59)
            .sum::<usize>()) as i64;
    assert!(
        slots as usize <= 2 * num_tokens && slots < in_one_set / 3,
        "{slots} slots for {num_tokens} tokens"
    );
    assert!(
        (3..=8).contains(&packed.reach.rows().len()),
        "{} sets",
        packed.reach.rows().len()
    );
}

fn assert_equal_to_single_sequences(samples: &[Sample]) {
    let config = config();
    let mut model = Model::new(
        &config,
        init::random(&config, 1, Device::Cpu).unwrap(),
        Device::Cpu,
    )
    .unwrap();
    let temperature = 0.8;

    let batch = groups(samples);
    let weights: Vec<f32> = (0..batch.num_response_tokens()).map(weight).collect();
    let mut run = |is_checkpointed| {
        model.checkpoint_layers(is_checkpointed);
        let pass = PolicyLogprobs::forward(&model, &batch, temperature).unwrap();
        let (logprobs, entropies) = (pass.logprobs.copy(), pass.entropies.copy());
        pass.backward(&model, &Tensor::from_slice(&weights))
            .unwrap();
        let gradients = gradients(&model);
        model.parameters_mut().zero_grad();
        (logprobs, entropies, gradients)
    };
    // Layers that are computed again on the way back give the same.
    let (checkpointed_logprobs, _, checkpointed_gradients) = run(true);
    let (packed_logprobs, packed_entropies, packed_gradients) = run(false);
    assert_eq!(checkpointed_logprobs, packed_logprobs);
    for ((name, once), (_, twice)) in packed_gradients.iter().zip(&checkpointed_gradients) {
        assert!(largest(&(once - twice)) <= 1e-6 * largest(once), "{name}");
    }

    // One by one, as plain causal sequences: the response is part of the "prompt", nothing is shared.
    let mut start = 0;
    let mut loss = Tensor::zeros([], (Kind::Float, Device::Cpu));
    for sample in samples {
        for response in &sample.responses {
            let sequence = [sample.prompt.as_slice(), response].concat();
            let batch = MicroBatch {
                groups: vec![Group {
                    prompt_ids: &sequence,
                    images: &sample.images,
                    responses: vec![],
                }],
            };
            let packed = Packed::new(&batch, &config, Device::Cpu).unwrap();
            let logits = model.logits(&model.hidden(&batch, &packed).unwrap()) / temperature; // [T+L, V]
            let (first, len) = (sample.prompt.len() as i64 - 1, response.len() as i64);
            let all = logits.narrow(0, first, len).log_softmax(-1, Kind::Float);
            let ids: Vec<i64> = response.iter().map(|&id| i64::from(id)).collect();
            let logprobs = all
                .gather(1, &Tensor::from_slice(&ids).unsqueeze(1), false)
                .squeeze_dim(1);
            let entropies = -(all.exp() * &all).sum_dim_intlist(-1, false, Kind::Float);
            assert!(largest(&(packed_logprobs.narrow(0, start, len) - &logprobs)) < 1e-5);
            assert!(largest(&(packed_entropies.narrow(0, start, len) - entropies)) < 1e-5);
            let weights = Tensor::from_slice(&weights[start as usize..(start + len) as usize]);
            loss += (logprobs * weights).sum(Kind::Float);
            start += len;
        }
    }
    loss.backward();
    for ((name, packed), (_, single)) in packed_gradients.iter().zip(gradients(&model)) {
        let scale = largest(&single);
        assert!(scale > 0.0, "{name} got no gradient");
        assert!(largest(&(packed - single)) < 1e-4 * scale + 1e-6, "{name}");
    }
}

#[test]
fn a_frozen_vision_tower_gets_no_gradient() {
    let config = config();
    let mut model = Model::new(
        &config,
        init::random(&config, 2, Device::Cpu).unwrap(),
        Device::Cpu,
    )
    .unwrap();
    assert!(model.parameters_mut().freeze("visual.").unwrap() > 0);
    assert!(model.parameters_mut().freeze("vision").is_err());
    let samples = samples();
    let batch = groups(&samples);
    let pass = PolicyLogprobs::forward(&model, &batch, 1.0).unwrap();
    let ones = Tensor::ones(
        [batch.num_response_tokens() as i64],
        (Kind::Float, Device::Cpu),
    );
    pass.backward(&model, &ones).unwrap();
    for parameter in model.parameters().iter() {
        assert_eq!(
            parameter.tensor.grad().defined(),
            !parameter.spec.name.starts_with("visual."),
            "{}",
            parameter.spec.name
        );
    }
}

#[test]
fn wrong_input_is_an_error() {
    let config = config();
    let model = Model::new(
        &config,
        init::random(&config, 3, Device::Cpu).unwrap(),
        Device::Cpu,
    )
    .unwrap();
    let mut samples = samples();
    samples[0].responses[0][0] = 40; // outside the vocabulary
    assert!(PolicyLogprobs::forward(&model, &groups(&samples), 1.0).is_err());
    samples[0].responses[0][0] = 6;
    samples[0].images.clear(); // pads without an image
    assert!(PolicyLogprobs::forward(&model, &groups(&samples), 1.0).is_err());
    assert!(PolicyLogprobs::forward(&model, &MicroBatch::default(), 1.0).is_err());
}

#[test]
fn saved_weights_come_back() {
    let config = config();
    let first = Model::new(
        &config,
        init::random(&config, 4, Device::Cpu).unwrap(),
        Device::Cpu,
    )
    .unwrap();
    let mut second = Model::new(
        &config,
        init::random(&config, 5, Device::Cpu).unwrap(),
        Device::Cpu,
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let out = folder.path().join("out");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("config.json"), "{}").unwrap();
    std::fs::write(source.join("model.safetensors.index.json"), "{}").unwrap();
    for bf16 in [true, false] {
        // The second time over the first one.
        learner::model::folder::save(first.parameters(), &source, &out, bf16).unwrap();
        assert!(
            out.join("config.json").exists() && !out.join("model.safetensors.index.json").exists()
        );
        second
            .parameters_mut()
            .reload(
                &config,
                &models::checkpoint::Checkpoint::open(&out).unwrap(),
            )
            .unwrap();
        let allowed = if bf16 { 0.004 } else { 0.0 };
        for (a, b) in first.parameters().iter().zip(second.parameters().iter()) {
            assert!(
                largest(&(&a.tensor - &b.tensor)) <= allowed * largest(&a.tensor),
                "{}",
                a.spec.name
            );
        }
    }
    // What is published is the same file that any reader of safetensors takes.
    let layout = first.parameters().layout();
    let mut bytes = vec![0; layout.total_bytes];
    first.parameters().write_f32(&layout, &mut bytes).unwrap();
    let published = folder.path().join("published.safetensors");
    std::fs::write(&published, bytes).unwrap();
    let checkpoint = models::checkpoint::Checkpoint::open(&published).unwrap();
    for parameter in first.parameters().iter() {
        let values = Tensor::from_slice(&checkpoint.read_f32(&parameter.spec.name).unwrap());
        assert_eq!(
            largest(&(parameter.tensor.flatten(0, -1) - values)),
            0.0,
            "{}",
            parameter.spec.name
        );
    }
}
