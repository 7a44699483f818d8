//! Computing in bf16, on a CPU where that works and on a GPU where there is one: near to f32 and without bias, with f32 weights
//! behind it; and the two forms of attention, which give the same.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test binary"
)]

use std::path::Path;

use learner::adapter;
use learner::logprobs::PolicyLogprobs;
use learner::memory;
use learner::model::lora::LoraSettings;
use learner::model::reach::Form;
use learner::model::{Model, Parameters, gradient, init, spans};
use learner::optimizer::{AdamW, OptimizerSettings};
use learner::{device, doctor};
use models::checkpoint::Checkpoint;
use shared::config::Schedule;
use tch::{Device, Kind, Tensor, no_grad};
use tiny::{config, groups, largest, samples, uneven_samples, weight};

#[allow(dead_code, reason = "each test binary takes what it needs")]
mod tiny;

/// The CPU, if its bf16 products work; else a line that says why a test is left out.
fn bf16_cpu() -> Option<Device> {
    match doctor::probe(Path::new(env!("CARGO_BIN_EXE_learner"))) {
        Ok(()) => Some(Device::Cpu),
        Err(reason) => {
            println!("skipped: bf16 on this CPU: {reason}");
            None
        }
    }
}

/// The first GPU, or a line that says why a test is left out.
fn gpu() -> Option<Device> {
    match device::open(shared::config::Device::Cuda(0)) {
        Ok(device) => Some(device),
        Err(error) => {
            println!("skipped: no GPU: {error:#}");
            None
        }
    }
}

/// The tiny model with what it trains, computing in `kind`.
fn model(device: Device, kind: Kind, form: Form, change: impl Fn(&mut Parameters)) -> Model {
    let config = config();
    let mut parameters = init::random(&config, 1, device).unwrap();
    change(&mut parameters);
    parameters.compute_in(kind);
    Model::with_form(&config, parameters, device, form).unwrap()
}

fn nothing(_: &mut Parameters) {}

fn freeze_vision(parameters: &mut Parameters) {
    parameters.freeze("visual.").unwrap();
}

fn lora(parameters: &mut Parameters) {
    let settings = LoraSettings {
        rank: 4,
        alpha: 8.0,
        seed: 3,
    };
    let layers = [
        "model.layers.0.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
    ];
    parameters
        .add_lora(settings, &layers.map(str::to_owned))
        .unwrap();
    // B is 0 at first, and A would have no gradient.
    for factor in parameters.lora_mut().unwrap().factors_mut() {
        let _ = no_grad(|| factor.tensor.g_add_scalar_(0.05));
    }
}

/// Logprobs, entropies and every gradient, f32 on the host.
struct Pass {
    logprobs: Tensor,
    entropies: Tensor,
    gradients: Vec<(String, Tensor)>,
}

fn on_host(x: &Tensor) -> Tensor {
    x.detach()
        .to_device(Device::Cpu)
        .to_kind(Kind::Float)
        .copy()
}

/// There and back over the uneven groups, with some weight at each token.
fn pass(model: &mut Model) -> Pass {
    let samples = uneven_samples();
    let batch = groups(&samples);
    let weights: Vec<f32> = (0..batch.num_response_tokens()).map(weight).collect();
    let pass = PolicyLogprobs::forward(model, &batch, 0.8).unwrap();
    assert_eq!(pass.logprobs.kind(), Kind::Float);
    let (logprobs, entropies) = (on_host(&pass.logprobs), on_host(&pass.entropies));
    pass.backward(model, &Tensor::from_slice(&weights)).unwrap();
    let trained = model.parameters().trainable();
    let gradients = trained.map(|parameter| {
        let gradient = parameter.tensor.grad();
        assert_eq!(gradient.kind(), Kind::Float, "{}", parameter.spec.name);
        (parameter.spec.name.clone(), on_host(&gradient))
    });
    let gradients = gradients.collect();
    model.parameters_mut().zero_grad();
    Pass {
        logprobs,
        entropies,
        gradients,
    }
}

/// How far one pass is from another.
#[derive(Debug)]
struct Distance {
    logprob: f64,
    /// Mean difference of the logprobs, with its sign.
    bias: f64,
    entropy: f64,
    /// Norm of the difference of all gradients over their norm, and the worst tensor's.
    gradient: f64,
    worst_gradient: f64,
    /// How long the gradient is along the expected one, less 1.
    stretch: f64,
}

fn distance(got: &Pass, expected: &Pass) -> Distance {
    let sum = |x: Tensor| x.sum(Kind::Double).double_value(&[]);
    let (mut error, mut along, mut norm) = (0.0, 0.0, 0.0);
    let mut tensors = Vec::new();
    for ((name, got), (_, expected)) in got.gradients.iter().zip(&expected.gradients) {
        let (e, n) = (sum((got - expected).square()), sum(expected.square()));
        assert!(n > 0.0 && e.is_finite(), "{name}");
        (error, norm, along) = (error + e, norm + n, along + sum(got * expected));
        tensors.push((name, e, n));
    }
    // What is next to nothing (a bias that shifts all keys alike) is rounding alone.
    tensors.retain(|(_, _, n)| *n > 1e-5 * norm);
    let by_error = |a: &&(_, f64, f64), b: &&(_, f64, f64)| (a.1 / a.2).total_cmp(&(b.1 / b.2));
    let (name, e, n) = tensors.iter().max_by(by_error).unwrap();
    println!("{} tensors; worst {name}", tensors.len());
    let difference = &got.logprobs - &expected.logprobs;
    Distance {
        logprob: largest(&difference),
        bias: difference.mean(Kind::Double).double_value(&[]),
        entropy: largest(&(&got.entropies - &expected.entropies)),
        gradient: (error / norm).sqrt(),
        worst_gradient: (e / n).sqrt(),
        stretch: along / norm - 1.0,
    }
}

fn assert_near_in_bf16(device: Device, form: Form, change: impl Fn(&mut Parameters) + Copy) {
    let expected = pass(&mut model(Device::Cpu, Kind::Float, Form::Rows, change));
    for is_checkpointed in [false, true] {
        let mut model = model(device, Kind::BFloat16, form, change);
        model.checkpoint_layers(is_checkpointed);
        let distance = distance(&pass(&mut model), &expected);
        println!("bf16 on {device:?}, {form:?}: {distance:?}");
        assert!(
            distance.logprob < 6e-2 && distance.entropy < 6e-2,
            "{distance:?}"
        );
        assert!(distance.bias.abs() < 1e-3, "{distance:?}");
        assert!(
            distance.gradient < 0.02 && distance.worst_gradient < 0.06,
            "{distance:?}"
        );
        assert!(distance.stretch.abs() < 5e-3, "{distance:?}");
    }
}

#[test]
fn both_forms_of_attention_give_the_same() {
    for change in [nothing as fn(&mut Parameters), freeze_vision, lora] {
        let expected = pass(&mut model(Device::Cpu, Kind::Float, Form::Rows, change));
        let got = pass(&mut model(Device::Cpu, Kind::Float, Form::Spans, change));
        let distance = distance(&got, &expected);
        println!("{distance:?}");
        assert!(
            distance.logprob < 1e-5 && distance.entropy < 1e-5,
            "{distance:?}"
        );
        assert!(distance.worst_gradient < 1e-5, "{distance:?}");
    }
}

#[test]
fn bf16_is_near_f32_and_has_no_bias() {
    let Some(cpu) = bf16_cpu() else { return };
    for change in [nothing as fn(&mut Parameters), freeze_vision, lora] {
        assert_near_in_bf16(cpu, Form::Rows, change);
    }
    assert_near_in_bf16(cpu, Form::Spans, nothing);
    // What the trial of a GPU's kernel allows is more than rounding, and less than a wrong mask.
    let error = spans::largest_error(cpu, Kind::BFloat16).unwrap();
    println!("trial of attention in bf16: {error}");
    assert!(0.0 < error && error < spans::ROUNDING / 2.0, "{error}");
}

fn optimizer(lr: f64) -> OptimizerSettings {
    OptimizerSettings {
        lr,
        beta1: 0.9,
        beta2: 0.999,
        weight_decay: 0.0,
        grad_clip: 1e9,
        schedule: Schedule::Constant,
        warmup_steps: 0,
        total_updates: 1000,
    }
}

#[test]
fn small_updates_add_up_in_f32() {
    const LR: f64 = 1e-5;
    const NAME: &str = "model.layers.0.mlp.up_proj.weight";
    let mut model = model(Device::Cpu, Kind::BFloat16, Form::Rows, nothing);
    let value = |model: &Model| model.parameters().weight(NAME).unwrap().value().copy();
    let master = model.parameters().get(NAME).unwrap();
    let (start, rounded) = (master.detach().copy(), value(&model));
    assert_eq!(rounded.kind(), Kind::BFloat16);
    let mut optimizer = AdamW::new(optimizer(LR));
    for step in 1..=100 {
        let ones = Tensor::ones_like(&start);
        no_grad(|| gradient::add(&master, &ones)).unwrap();
        optimizer.step(model.parameters_mut()).unwrap();
        let changed = value(&model).ne_tensor(&rounded).to_kind(Kind::Double);
        let share = changed.mean(Kind::Double).double_value(&[]);
        match step {
            // A step of 1e-5 is less than half of what bf16 tells apart of most values.
            1 => assert!(share < 0.1, "{share}"),
            100 => assert!(share > 0.5, "{share}"),
            _ => {}
        }
    }
    // A constant gradient moves each value by the rate at each step.
    let moved = (&start - master.detach()) / (100.0 * LR);
    assert!(largest(&(moved - 1.0)) < 0.01);
    assert_eq!(value(&model), master.detach().to_kind(Kind::BFloat16));
}

/// Two updates of a model; the losses' gradients are those of fixed weights.
fn train(model: &mut Model, optimizer: &mut AdamW, updates: usize) {
    let samples = samples();
    let batch = groups(&samples);
    let weights: Vec<f32> = (0..batch.num_response_tokens()).map(weight).collect();
    for _ in 0..updates {
        let pass = PolicyLogprobs::forward(model, &batch, 1.0).unwrap();
        pass.backward(model, &Tensor::from_slice(&weights)).unwrap();
        optimizer.step(model.parameters_mut()).unwrap();
    }
}

#[test]
fn a_run_in_bf16_goes_on_bit_for_bit_from_what_it_published() {
    let Some(cpu) = bf16_cpu() else { return };
    let config = config();
    let folder = tempfile::tempdir().unwrap();
    for change in [nothing as fn(&mut Parameters), freeze_vision, lora] {
        let mut first = model(cpu, Kind::BFloat16, Form::Rows, change);
        let mut of_first = AdamW::new(optimizer(1e-3));
        train(&mut first, &mut of_first, 2);

        let layout = first.parameters().layout();
        let mut bytes = vec![0; layout.total_bytes];
        first.parameters().write_f32(&layout, &mut bytes).unwrap();
        let published = folder.path().join("model.safetensors");
        std::fs::write(&published, bytes).unwrap();
        let state = folder.path().join("optimizer.safetensors");
        of_first.save(&state).unwrap();
        let adapter_folder = folder.path().join("adapter");
        std::fs::create_dir_all(&adapter_folder).unwrap();

        let mut second = model(cpu, Kind::BFloat16, Form::Rows, change);
        if let Some(lora) = first.parameters().lora() {
            adapter::save(&adapter_folder, lora, Path::new("base")).unwrap();
            let own = second.parameters_mut().lora_mut().unwrap();
            adapter::load(&adapter_folder, own).unwrap();
            second.parameters_mut().refresh();
            let merged = Checkpoint::open(&published).unwrap();
            adapter::check_base(second.parameters(), &merged, Path::new("base")).unwrap();
        } else {
            let published = Checkpoint::open(&published).unwrap();
            second.parameters_mut().reload(&config, &published).unwrap();
        }
        let mut of_second = AdamW::load(optimizer(1e-3), &state, second.parameters()).unwrap();
        train(&mut first, &mut of_first, 2);
        train(&mut second, &mut of_second, 2);
        let mut num_moved = 0;
        let untrained = model(cpu, Kind::BFloat16, Form::Rows, change);
        let pairs = first.parameters().all().zip(second.parameters().all());
        for ((a, b), start) in pairs.zip(untrained.parameters().all()) {
            assert_eq!(a.tensor, b.tensor, "{}", a.spec.name);
            let kind = if a.tensor.requires_grad() {
                Kind::Float
            } else {
                learner::model::parameters::stored_as(&a.spec, Kind::BFloat16)
            };
            assert_eq!(a.tensor.kind(), kind, "{}", a.spec.name);
            num_moved += usize::from(a.tensor != start.tensor);
        }
        assert_eq!(num_moved, first.parameters().trainable().count());
    }
}

/// What engines read is f32 whatever the learner computes in: trained values as the optimizer has them, not as products do.
#[test]
fn what_is_published_are_the_f32_values() {
    let config = config();
    let model = model(Device::Cpu, Kind::BFloat16, Form::Rows, freeze_vision);
    let layout = model.parameters().layout();
    let mut bytes = vec![0; layout.total_bytes];
    model.parameters().write_f32(&layout, &mut bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let published = Checkpoint::open(&path).unwrap();
    published.check(&config).unwrap();
    let exact = init::random(&config, 1, Device::Cpu).unwrap();
    for parameter in exact.iter() {
        let name = &parameter.spec.name;
        let values = Tensor::from_slice(&published.read_f32(name).unwrap());
        let is_matrix = parameter.spec.shape.len() > 1 || name.ends_with(".bias");
        let expected = match name.starts_with("visual.") && is_matrix {
            true => parameter
                .tensor
                .to_kind(Kind::BFloat16)
                .to_kind(Kind::Float),
            false => parameter.tensor.shallow_clone(),
        };
        assert_eq!(values, expected.detach().flatten(0, -1), "{name}");
    }
}

#[test]
fn a_gpu_in_f32_gives_what_a_cpu_gives() {
    let Some(gpu) = gpu() else { return };
    for change in [nothing as fn(&mut Parameters), freeze_vision, lora] {
        let expected = pass(&mut model(Device::Cpu, Kind::Float, Form::Rows, change));
        let got = pass(&mut model(gpu, Kind::Float, Form::Rows, change));
        let distance = distance(&got, &expected);
        println!("f32 on {gpu:?}: {distance:?}");
        assert!(
            distance.logprob < 1e-4 && distance.entropy < 1e-4,
            "{distance:?}"
        );
        assert!(distance.worst_gradient < 1e-3, "{distance:?}");
    }
}

#[test]
fn a_gpu_in_bf16_is_near_a_cpu_in_f32_in_both_forms() {
    let Some(gpu) = gpu() else { return };
    println!(
        "trial of attention: {:?}",
        spans::largest_error(gpu, Kind::BFloat16)
    );
    assert!(spans::works_on(gpu, Kind::BFloat16));
    assert_eq!(Form::best(gpu, Kind::BFloat16, &[128, 80]), Form::Spans);
    for change in [nothing as fn(&mut Parameters), freeze_vision, lora] {
        assert_near_in_bf16(gpu, Form::Spans, change);
        assert_near_in_bf16(gpu, Form::Rows, change);
    }
}

#[test]
fn updates_on_a_gpu_are_those_of_a_cpu() {
    let Some(gpu) = gpu() else { return };
    let run = |device: Device| {
        let mut model = model(device, Kind::Float, Form::Rows, nothing);
        train(&mut model, &mut AdamW::new(optimizer(1e-3)), 3);
        model
    };
    let (there, here) = (run(gpu), run(Device::Cpu));
    for (a, b) in there.parameters().iter().zip(here.parameters().iter()) {
        let difference = largest(&(on_host(&a.tensor) - on_host(&b.tensor)));
        assert!(difference < 1e-3, "{}: {difference}", a.spec.name);
    }
    let room = memory::room(shared::config::Device::Cuda(0)).unwrap();
    println!("{room:?}");
    assert!(0 < room.free && room.free < room.total);
}
