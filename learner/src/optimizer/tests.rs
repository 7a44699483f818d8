//! Against AdamW written down once more: f64, number by number, each tensor with its own count.

use std::collections::BTreeMap;

use models::names::TensorSpec;
use shared::config::Schedule;

use super::*;

const SETTINGS: OptimizerSettings = OptimizerSettings {
    lr: 0.05,
    beta1: 0.9,
    beta2: 0.99,
    weight_decay: 0.1,
    grad_clip: 1.0,
    schedule: Schedule::Linear,
    warmup_steps: 2,
    total_updates: 12,
};
const START: [f32; 3] = [1.0, -2.0, 0.5];

fn parameters(names: &[&str]) -> Parameters {
    let entry = |name: &&str| {
        let spec = TensorSpec {
            name: (*name).to_owned(),
            shape: vec![START.len()],
        };
        let tensor = Tensor::from_slice(&START).set_requires_grad(true);
        Parameter::new(spec, tensor)
    };
    Parameters::from_entries(names.iter().map(entry).collect())
}

/// Gradients of one update, by name. A tensor that is not named is not reached.
type Gradients = BTreeMap<&'static str, [f32; 3]>;

/// Tensor a is reached by every update, b from the fourth on, c by the second and the sixth; the fifth is not finite.
fn gradients() -> Vec<Gradients> {
    let of = |update: usize, shift: f32| -> [f32; 3] {
        [0.3, -0.9, 2.0].map(|size: f32| size * (update as f32 * 1.7 + shift).sin())
    };
    let mut all: Vec<Gradients> = (1..=8)
        .map(|update| {
            let mut gradients = Gradients::from([("a", of(update, 0.0))]);
            if update >= 4 {
                gradients.insert("b", of(update, 1.0));
            }
            if [2, 6].contains(&update) {
                gradients.insert("c", of(update, 2.0));
            }
            gradients
        })
        .collect();
    all[4].insert("a", [f32::NAN, 0.0, 0.0]);
    all
}

fn backward(parameters: &Parameters, gradients: &Gradients) {
    for (name, gradient) in gradients {
        let tensor = parameters.get(name).unwrap();
        (tensor * Tensor::from_slice(gradient))
            .sum(Kind::Float)
            .backward();
    }
}

/// p, m, v of each number, and the tensor's count.
#[derive(Clone, Default)]
struct Plain {
    count: i32,
    numbers: Vec<[f64; 3]>,
}

/// The same updates in f64; returns each tensor's values.
fn plain(updates: &[Gradients], names: &[&'static str]) -> BTreeMap<&'static str, Vec<f64>> {
    let fresh = Plain {
        count: 0,
        numbers: START.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect(),
    };
    let mut tensors: BTreeMap<_, _> = names.iter().map(|&name| (name, fresh.clone())).collect();
    let mut is_reached = BTreeMap::<&str, bool>::new();
    let mut taken = 0_i32;
    for gradients in updates {
        for name in gradients.keys() {
            is_reached.insert(name, true);
        }
        let all = gradients.values().flatten().map(|&g| f64::from(g));
        let norm = all.map(|g| g * g).sum::<f64>().sqrt();
        if !norm.is_finite() {
            continue;
        }
        let clip = f64::min(1.0, SETTINGS.grad_clip / (norm + 1e-6));
        let lr = match taken {
            0 => 0.025,
            1 => 0.05,
            later => 0.05 * (1.0 - f64::from(later - 2) / 10.0),
        };
        taken += 1;
        for (name, tensor) in &mut tensors {
            if !is_reached.contains_key(name) {
                continue;
            }
            tensor.count += 1;
            let gradient = gradients.get(name).copied().unwrap_or_default();
            for ([p, m, v], g) in tensor.numbers.iter_mut().zip(gradient) {
                let g = clip * f64::from(g);
                *p -= lr * SETTINGS.weight_decay * *p;
                *m = SETTINGS.beta1 * *m + (1.0 - SETTINGS.beta1) * g;
                *v = SETTINGS.beta2 * *v + (1.0 - SETTINGS.beta2) * g * g;
                let m_hat = *m / (1.0 - SETTINGS.beta1.powi(tensor.count));
                let v_hat = *v / (1.0 - SETTINGS.beta2.powi(tensor.count));
                *p -= lr * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
    }
    let values = |(name, tensor): (&'static str, Plain)| {
        (
            name,
            tensor.numbers.iter().map(|number| number[0]).collect(),
        )
    };
    tensors.into_iter().map(values).collect()
}

fn assert_near(parameters: &Parameters, expected: &BTreeMap<&'static str, Vec<f64>>) {
    for (name, expected) in expected {
        let got: Vec<f32> = parameters.get(name).unwrap().try_into().unwrap();
        for (got, expected) in got.iter().zip(expected) {
            let difference = (f64::from(*got) - expected).abs();
            assert!(difference < 2e-6, "{name}: {got}, not {expected}");
        }
    }
}

#[test]
fn tensors_that_gradients_reach_at_different_times_are_adamws_in_f64() {
    let names = ["a", "b", "c", "never"];
    let mut parameters = parameters(&names);
    let mut optimizer = AdamW::new(SETTINGS);
    let updates = gradients();
    for (index, gradients) in updates.iter().enumerate() {
        backward(&parameters, gradients);
        let update = optimizer.step(&mut parameters).unwrap();
        assert_eq!(update.is_skipped, index == 4);
        assert_near(&parameters, &plain(&updates[..=index], &names));
    }
    assert_eq!((optimizer.num_updates(), optimizer.num_skipped()), (7, 1));
    let never: Vec<f32> = parameters.get("never").unwrap().try_into().unwrap();
    assert_eq!(never, START, "no decay either");
    let count = |name: &str| optimizer.moments[name].num_updates;
    assert_eq!((count("a"), count("b"), count("c")), (7, 4, 6));
}

#[test]
fn saved_after_any_update_it_goes_on_bit_for_bit() {
    let names = ["a", "b", "c", "never"];
    let updates = gradients();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let run = |saved_after: Option<usize>| -> (Vec<Vec<f32>>, Vec<u8>) {
        let mut parameters = parameters(&names);
        let mut optimizer = AdamW::new(SETTINGS);
        for (index, gradients) in updates.iter().enumerate() {
            if saved_after == Some(index) {
                optimizer.save(&path).unwrap();
                // Another process: the values are there, the gradients' memory is not.
                let again = self::parameters(&names);
                no_grad(|| {
                    for (new, old) in again.iter().zip(parameters.iter()) {
                        new.tensor.shallow_clone().copy_(&old.tensor);
                    }
                });
                parameters = again;
                optimizer = AdamW::load(SETTINGS, &path, &parameters).unwrap();
            }
            backward(&parameters, gradients);
            optimizer.step(&mut parameters).unwrap();
        }
        optimizer.save(&path).unwrap();
        let values = parameters.iter().map(|parameter| {
            let tensor = parameter.tensor.detach();
            Vec::<f32>::try_from(tensor).unwrap()
        });
        (values.collect(), std::fs::read(&path).unwrap())
    };
    let expected = run(None);
    for index in 0..updates.len() {
        assert!(run(Some(index)) == expected, "saved before update {index}");
    }
}

#[test]
fn a_tensor_that_was_frozen_before_a_resume_begins_with_its_own_first_update() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let frozen = parameters(&["a", "b"]);
    let mut first = parameters(&["a", "b"]);
    first.freeze("b").unwrap();
    let mut optimizer = AdamW::new(SETTINGS);
    let updates: Vec<Gradients> = (0..6)
        .map(|update| {
            let mut gradients = Gradients::from([("a", [0.1, 0.2, -0.1])]);
            if update >= 3 {
                gradients.insert("b", [0.2, -0.1, 0.3]);
            }
            gradients
        })
        .collect();
    for gradients in &updates[..3] {
        backward(&first, gradients);
        optimizer.step(&mut first).unwrap();
    }
    optimizer.save(&path).unwrap();
    no_grad(|| {
        for (new, old) in frozen.iter().zip(first.iter()) {
            new.tensor.shallow_clone().copy_(&old.tensor);
        }
    });
    let mut thawed = frozen;
    let mut optimizer = AdamW::load(SETTINGS, &path, &thawed).unwrap();
    for gradients in &updates[3..] {
        backward(&thawed, gradients);
        optimizer.step(&mut thawed).unwrap();
    }
    assert_near(&thawed, &plain(&updates, &["a", "b"]));
}

#[test]
fn a_file_without_counts_has_the_runs_for_every_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let mut parameters = parameters(&["a"]);
    let mut optimizer = AdamW::new(SETTINGS);
    for gradients in &gradients()[..3] {
        backward(&parameters, &Gradients::from([("a", gradients["a"])]));
        optimizer.step(&mut parameters).unwrap();
    }
    optimizer.save(&path).unwrap();
    let tensors = Tensor::read_safetensors(&path).unwrap();
    let of_before: Vec<_> = tensors
        .into_iter()
        .filter(|(name, _)| !name.starts_with(STEP))
        .collect();
    Tensor::write_safetensors(&of_before, &path).unwrap();
    let loaded = AdamW::load(SETTINGS, &path, &parameters).unwrap();
    assert_eq!(loaded.moments["a"].num_updates, 3);
}
