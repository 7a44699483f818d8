//! LoRA and freezing: gradients, merging, resuming, and choices that leave nothing to train.

use std::collections::HashMap;
use std::path::Path;

use learner::batch::Batch;
use learner::logprobs::PolicyLogprobs;
use learner::model::Model;
use learner::model::lora::LoraSettings;
use learner::model::selection::Selection;
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use rustix::process::Signal;
use shared::config::{LearnerArgs, Names};
use shared::ids::{PolicyVersion, Ticket};
use tch::{Device, Kind, Tensor, no_grad};
use tests::Fixtures;

use crate::dice::{Dice, DiceRollout, Shift};
use crate::{assert_same_end, checkpoint, finish, learner, send, text, undisturbed, wait_for};

fn args(change: impl FnOnce(&mut LearnerArgs)) -> LearnerArgs {
    use clap::{Args as _, FromArgMatches as _};
    let command = LearnerArgs::augment_args(clap::Command::new("learner"));
    let matches = command.get_matches_from(["learner"]);
    let mut args = LearnerArgs::from_arg_matches(&matches).unwrap();
    change(&mut args);
    args
}

fn initial() -> Checkpoint {
    Checkpoint::open(&Fixtures::open().unwrap().model()).unwrap()
}

fn selected(config: &ModelConfig, change: impl FnOnce(&mut LearnerArgs)) -> Model {
    let selection = Selection::new(config, &args(change), 7).unwrap();
    selection
        .load(config, &initial(), Device::Cpu, Kind::Float)
        .unwrap()
}

/// A model with adapters that do something.
fn adapted(config: &ModelConfig, targets: &str) -> Model {
    let mut model = selected(config, |args| {
        args.lora_rank = 3;
        args.lora_alpha = Some(12.0);
        args.lora_targets = Some(targets.parse::<Names>().unwrap());
    });
    tch::manual_seed(11);
    for factor in model.parameters_mut().lora_mut().unwrap().factors_mut() {
        let _ = no_grad(|| factor.tensor.normal_(0.0, 0.02));
    }
    model
}

/// Logprobs, and whatever their weighted sum gives the parameters for gradients.
fn pass(dice: &Dice, model: &Model) -> Tensor {
    let records = (0..4).map(|ticket| dice.record(Ticket(ticket), PolicyVersion(0)));
    let batch = Batch::new(records.collect());
    let micro_batch = batch.micro_batches(0..4, usize::MAX, |_| true).remove(0);
    let patches = batch.patches(&micro_batch, &dice.images).unwrap();
    let input = batch.input(&micro_batch, &patches);
    let pass = PolicyLogprobs::forward(model, &input, 0.9).unwrap();
    let logprobs = pass.logprobs.copy();
    let weights: Vec<f32> = (0..batch.num_tokens())
        .map(|token| [1.0, -0.5, 0.7][token % 3])
        .collect();
    pass.backward(model, &Tensor::from_slice(&weights)).unwrap();
    logprobs
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

/// The published file, read back as a model of its own.
fn published(model: &Model, folder: &Path) -> Model {
    let parameters = model.parameters();
    let layout = parameters.layout();
    let mut bytes = vec![0; layout.total_bytes];
    parameters.write_f32(&layout, &mut bytes).unwrap();
    let path = folder.join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    Model::load(model.config(), &checkpoint, Device::Cpu).unwrap()
}

#[test]
fn factors_have_the_gradient_of_the_matrix_that_they_are_merged_into() {
    let dice = Dice::open();
    let folder = tempfile::tempdir().unwrap();
    // Layers of both towers, one of them with a bias and one that reads what no other layer reads.
    let lora = adapted(&dice.config, "q_proj,down_proj,attn.qkv");
    let merged = published(&lora, folder.path());
    let (by_factors, by_matrix) = (pass(&dice, &lora), pass(&dice, &merged));
    let mut base = selected(&dice.config, |_| {});
    let by_base = pass(&dice, &base);
    let distance = largest(&(&by_factors - by_matrix));
    let (scale, effect) = (largest(&by_factors), largest(&(&by_factors - &by_base)));
    assert!(
        distance < 1e-5 * scale && effect > 1e-2 * scale,
        "logprobs up to {scale} differ by {distance}, from the base's by {effect}"
    );
    // Switched off they leave the base.
    let reference = pass(&dice, &lora.base().unwrap());
    assert_eq!(reference, by_base);
    base.parameters_mut().zero_grad();

    let parameters = lora.parameters();
    let adapters = parameters.lora().unwrap();
    let mut towers = HashMap::new();
    for (layer, factors) in adapters.layers().iter().zip(adapters.factors().chunks(2)) {
        let gradient = merged
            .parameters()
            .get(&format!("{layer}.weight"))
            .unwrap()
            .grad();
        let (a, b) = (factors[0].tensor.detach(), factors[1].tensor.detach());
        let scale = 12.0 / 3.0;
        for (factor, expected) in [
            (&factors[0], b.transpose(0, 1).matmul(&gradient) * scale),
            (&factors[1], gradient.matmul(&a.transpose(0, 1)) * scale),
        ] {
            let got = factor.tensor.grad();
            let size = largest(&expected);
            assert!(size > 0.0, "{}", factor.spec.name);
            assert!(
                largest(&(got - expected)) < 1e-3 * size + 1e-6,
                "{}",
                factor.spec.name
            );
        }
        *towers.entry(layer.starts_with("visual.")).or_insert(0) += 1;
    }
    assert!(towers[&true] > 0 && towers[&false] > 0, "{towers:?}");
    for parameter in parameters.iter() {
        assert!(
            !parameter.tensor.requires_grad() && !parameter.tensor.grad().defined(),
            "{}",
            parameter.spec.name
        );
    }
}

#[test]
fn before_the_first_update_a_policy_with_lora_is_its_base() {
    let dice = Dice::open();
    let folder = tempfile::tempdir().unwrap();
    let lora = selected(&dice.config, |args| args.lora_rank = 2);
    let settings = LoraSettings {
        rank: 2,
        alpha: 4.0,
        seed: 7,
    };
    let adapters = lora.parameters().lora().unwrap();
    assert_eq!(adapters.settings(), &settings);
    assert_eq!(adapters.layers().len(), 7 * dice.config.text.num_layers);
    let merged = published(&lora, folder.path());
    for name in initial().names() {
        let values = |model: &Model| model.parameters().get(name).unwrap();
        assert_eq!(values(&merged), values(&lora), "{name}");
    }
}

#[test]
fn rank_0_and_no_pattern_train_everything_as_before() {
    let dice = Dice::open();
    let names = |model: &Model| -> Vec<String> {
        let trainable = model.parameters().trainable();
        trainable.map(|trained| trained.spec.name.clone()).collect()
    };
    let plain = Model::load(&dice.config, &initial(), Device::Cpu).unwrap();
    let selected_all = selected(&dice.config, |_| {});
    assert_eq!(names(&selected_all), names(&plain));
    assert!(selected_all.parameters().lora().is_none());
    assert_eq!(pass(&dice, &selected_all), pass(&dice, &plain));

    // And patterns freeze what they name, no more.
    let frozen = selected(&dice.config, |args| {
        args.freeze = Some("visual.merger.,*.bias".parse().unwrap());
    });
    let left = names(&plain)
        .into_iter()
        .filter(|name| !name.starts_with("visual.merger.") && !name.ends_with(".bias"));
    assert_eq!(names(&frozen), left.collect::<Vec<_>>());
    let vision = selected(&dice.config, |args| args.freeze_vision = true);
    assert!(
        names(&vision)
            .iter()
            .all(|name| name.starts_with("model.") || name.starts_with("lm_head."))
    );
}

#[test]
fn a_run_with_lora_resumes_exactly_and_only_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    // With a KL term: its reference is the base below the adapters.
    let args = ["--algo", "grpo", "--kl-coef", "0.1", "--lora-rank", "4"];
    let expected = undisturbed(folder.path(), &args);

    let run_dir = folder.path().join("killed");
    let rollout = DiceRollout::start(&run_dir, Shift::Endless);
    let mut killed = learner(&run_dir, &args).spawn().unwrap();
    wait_for(&checkpoint(&run_dir, 2));
    send(killed.id(), Signal::KILL);
    killed.wait().unwrap();

    let merged = checkpoint(&expected, 5);
    for (wrong, message) in [
        (
            ["--lora-rank", "0"],
            "was trained with LoRA: give --lora-rank 4, or start another run",
        ),
        (
            ["--lora-rank", "3"],
            "was trained with --lora-rank 4 --lora-alpha 8: only these go on from it",
        ),
        (["--lora-targets", "o_proj"], "has adapters of other layers"),
        (
            ["--model", merged.to_str().unwrap()],
            "is not the model that the adapter was trained on",
        ),
    ] {
        let output = finish(
            learner(&run_dir, &["--resume"])
                .args(wrong)
                .spawn()
                .unwrap(),
        );
        assert!(!output.status.success(), "{wrong:?}");
        assert!(
            text(&output).contains(message),
            "{wrong:?}: {}",
            text(&output)
        );
    }

    let output = finish(learner(&run_dir, &args).arg("--resume").spawn().unwrap());
    assert!(output.status.success(), "{}", text(&output));
    drop(rollout);
    assert_same_end(&expected, &run_dir, 5);
    let adapter = |run_dir: &Path| {
        let path = checkpoint(run_dir, 5).join("adapter/adapter_model.safetensors");
        std::fs::read(path).unwrap()
    };
    assert!(adapter(&expected) == adapter(&run_dir));
    is_a_merged_model_with_its_adapter(&checkpoint(&run_dir, 5));
}

/// The checkpoint is the base with each adapted matrix W + 2 B A, of what PEFT would read.
fn is_a_merged_model_with_its_adapter(saved: &Path) {
    let read = |path: &Path| -> HashMap<String, Tensor> {
        let tensors = Tensor::read_safetensors(path).unwrap();
        tensors.into_iter().collect()
    };
    let merged = read(&saved.join("model.safetensors"));
    let mut adapter = read(&saved.join("adapter/adapter_model.safetensors"));
    let mut num_adapted = 0;
    for name in initial().names() {
        let base = Tensor::from_slice(&initial().read_f32(name).unwrap());
        let key = name.trim_end_matches(".weight");
        let mut take =
            |factor: &str| adapter.remove(&format!("base_model.model.{key}.lora_{factor}.weight"));
        let got = merged[name].flatten(0, -1);
        let Some((a, b)) = take("A").zip(take("B")) else {
            assert_eq!(got, base, "{name}");
            continue;
        };
        num_adapted += 1;
        assert!(largest(&b) > 0.0, "{name} was not trained");
        let expected = base + (b.matmul(&a) * 2.0).flatten(0, -1);
        assert!(largest(&(got - expected)) < 1e-6, "{name}");
    }
    assert!(adapter.is_empty() && num_adapted > 0);
    let text = std::fs::read(saved.join("adapter/adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (&config["r"], &config["lora_alpha"]),
        (&4.into(), &8.0.into())
    );
    assert_eq!(config["peft_type"], "LORA");
    let targets = config["target_modules"].as_array().unwrap();
    assert_eq!(
        (targets.len(), &targets[0]),
        (num_adapted, &"layers.0.self_attn.q_proj".into())
    );
    assert!(merged.values().all(|tensor| tensor.kind() == Kind::Float));
}

#[test]
fn choices_that_train_nothing_leave_no_run_behind() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let cases: [(&[&str], &str); 7] = [
        (&["--freeze", "*"], "--freeze leaves nothing to train: all "),
        (
            &["--freeze", "visual.merger,model.layer.0"],
            "no tensor's name matches \"model.layer.0\"; did you mean \"model.layers.0\"?",
        ),
        (
            &["--lora-rank", "2", "--lora-targets", "v_proj,q_prj"],
            "--lora-targets: no linear layer's name ends with \"q_prj\"; did you mean \"q_proj\"?",
        ),
        (
            &["--lora-rank", "2", "--freeze", "model"],
            "--freeze leaves nothing to train: every layer that LoRA would adapt is frozen",
        ),
        (
            &[
                "--lora-rank",
                "2",
                "--freeze-vision",
                "--lora-targets",
                "qkv",
            ],
            "every layer that LoRA would adapt is frozen",
        ),
        (
            &["--lora-rank", "100000"],
            "--lora-rank 100000 is above the rank of every layer",
        ),
        (
            &["--lora-targets", "q_proj"],
            "lora_targets in [learner] has no effect without LoRA",
        ),
    ];
    for (args, message) in cases {
        let output = finish(learner(&run_dir, args).spawn().unwrap());
        let said = text(&output);
        assert!(!output.status.success() && !run_dir.exists(), "{args:?}");
        assert!(said.contains(message), "{args:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}
