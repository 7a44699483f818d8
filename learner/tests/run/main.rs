//! The built `learner` on run folders: killed, resumed, interrupted, misled.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::image::ImageProcessor;
use rustix::process::{Pid, Signal, kill_process};
use shared::ids::PolicyVersion;
use shared::telemetry::read_metrics;
use shared::weights;
use tests::Fixtures;

use dice::{DiceRollout, Shift};

mod dice;
mod lora;
mod metrics;
mod mid_batch;
mod remax;
mod source;
mod trouble;
mod update;
mod validation;

const PATIENCE: Duration = Duration::from_secs(240);

fn learner(run_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_learner"));
    command
        .arg("--run-dir")
        .arg(run_dir)
        .arg("--model")
        .arg(Fixtures::open().unwrap().model());
    command.args([
        "--steps",
        "5",
        "--batch-prompts",
        "4",
        "--lr",
        "1e-3",
        "--threads",
        "1",
    ]);
    command
        .args(["--micro-batch-tokens", "300", "--save-every", "1"])
        .args(args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn finish(child: Child) -> Output {
    let id = child.id();
    let done = Arc::new(AtomicBool::new(false));
    let waiting = Arc::clone(&done);
    // A run that hangs fails, rather than hang the tests.
    let guard = spawn(move || {
        let started = Instant::now();
        while !waiting.load(Ordering::SeqCst) {
            if started.elapsed() > PATIENCE {
                send(id, Signal::KILL);
                return;
            }
            sleep(Duration::from_millis(100));
        }
    });
    let output = child.wait_with_output().unwrap();
    done.store(true, Ordering::SeqCst);
    guard.join().unwrap();
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn send(id: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn checkpoint(run_dir: &Path, step: u64) -> PathBuf {
    run_dir.join(format!("checkpoints/step-{step:08}"))
}

fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(
            started.elapsed() < PATIENCE,
            "{} did not appear",
            path.display()
        );
        sleep(Duration::from_millis(20));
    }
}

/// Runs to the end without trouble and returns the run folder.
fn undisturbed(folder: &Path, args: &[&str]) -> PathBuf {
    let run_dir = folder.join("undisturbed");
    let _rollout = DiceRollout::start(&run_dir, Shift::Endless);
    let output = finish(learner(&run_dir, args).spawn().unwrap());
    assert!(output.status.success(), "{}", text(&output));
    run_dir
}

fn assert_same_end(expected: &Path, got: &Path, step: u64) {
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run_dir: &Path| std::fs::read(checkpoint(run_dir, step).join(file)).unwrap();
        assert!(read(expected) == read(got), "{file} differs");
    }
    // Where the data stands: tickets, surplus groups, what was counted for the batch begun.
    let state = |run_dir: &Path| {
        let folder = checkpoint(run_dir, step);
        let trainer = std::fs::read(folder.join("trainer.json")).unwrap();
        let mut trainer: serde_json::Value = serde_json::from_slice(&trainer).unwrap();
        let config = trainer["config"].take();
        let kl_coef = config["learner"]["kl_coef"].clone();
        (
            trainer,
            kl_coef,
            std::fs::read(folder.join("records.bin")).unwrap(),
        )
    };
    assert_eq!(state(expected), state(got));
    let rows = |run_dir: &Path| {
        let rows = read_metrics(&run_dir.join("metrics.jsonl")).unwrap();
        let value = |row: &shared::telemetry::MetricsRow, name: &str| {
            row.values
                .iter()
                .find(|(known, _)| known == name)
                .unwrap()
                .1
        };
        let names = [
            "actor/pg_loss",
            "actor/kl_loss",
            "actor/kl_coef",
            "actor/entropy",
            "actor/grad_norm",
            "critic/rewards/mean",
            "critic/advantages/max",
            "critic/score/mean",
            "tor/overlap_fraction",
            "sampled/groups",
            "sampled/rounds",
            "train/groups",
        ];
        rows.iter()
            .map(|row| {
                assert!(
                    value(row, "train/logprob_diff_max") < 1e-4,
                    "step {}: mismatch",
                    row.step
                );
                (row.step, names.map(|name| value(row, name).to_bits()))
            })
            .collect::<Vec<_>>()
    };
    let (expected, got) = (rows(expected), rows(got));
    assert_eq!(
        expected.iter().map(|row| row.0).collect::<Vec<_>>(),
        (1..=step).collect::<Vec<_>>()
    );
    assert_eq!(expected, got);
}

#[test]
fn killed_and_resumed_it_ends_like_an_undisturbed_run() {
    let folder = tempfile::tempdir().unwrap();
    let expected = undisturbed(folder.path(), &[]);

    let run_dir = folder.path().join("killed");
    let _first = DiceRollout::start(&run_dir, Shift::Endless);
    let _second = DiceRollout::start(&run_dir, Shift::Endless);
    let mut killed = learner(&run_dir, &[]).spawn().unwrap();
    wait_for(&checkpoint(&run_dir, 2));
    send(killed.id(), Signal::KILL);
    killed.wait().unwrap();

    let refused = finish(learner(&run_dir, &[]).spawn().unwrap());
    assert!(
        !refused.status.success() && text(&refused).contains("add --resume to go on"),
        "{}",
        text(&refused)
    );

    let resumed = learner(&run_dir, &["--resume"]).spawn().unwrap();
    wait_for(&checkpoint(&run_dir, 3));
    send(resumed.id(), Signal::INT);
    let interrupted = finish(resumed);
    assert!(interrupted.status.success(), "{}", text(&interrupted));

    let output = finish(learner(&run_dir, &["--resume"]).spawn().unwrap());
    assert!(output.status.success(), "{}", text(&output));
    assert_same_end(&expected, &run_dir, 5);
}

/// A run that is killed after its third step and resumed ends like `expected`.
fn killed_it_ends_like(expected: &Path, folder: &Path, args: &[&str]) {
    let run_dir = folder.join("killed");
    let _rollout = DiceRollout::start(&run_dir, Shift::Endless);
    let mut killed = learner(&run_dir, args).spawn().unwrap();
    wait_for(&checkpoint(&run_dir, 3));
    send(killed.id(), Signal::KILL);
    killed.wait().unwrap();
    let output = finish(learner(&run_dir, &["--resume"]).spawn().unwrap());
    assert!(output.status.success(), "{}", text(&output));
    assert_same_end(expected, &run_dir, 5);
}

#[test]
fn grpo_with_several_updates_per_batch_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "--algo",
        "grpo",
        "--mini-batch-prompts",
        "2",
        "--update-epochs",
        "2",
        "--schedule",
        "cosine",
        "--warmup-steps",
        "3",
        // Most entropies at this cut are exactly 0: which tokens are in is drawn by the seed.
        "--rho",
        "0.7",
    ];
    let expected = undisturbed(folder.path(), &args);

    killed_it_ends_like(&expected, folder.path(), &args);
}

#[test]
fn an_adaptive_kl_coefficient_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "--algo",
        "rloo",
        "--surrogate",
        "gspo",
        "--clip-high",
        "0.1",
        "--kl-coef",
        "0.3",
        "--kl-target",
        "0.01",
        "--kl-horizon",
        "50",
        "--token-weights",
        "vppo",
        "--entropy-coef",
        "0.01",
        "--mask-truncated",
    ];
    let expected = undisturbed(folder.path(), &args);
    let coefficients: Vec<f64> = read_metrics(&expected.join("metrics.jsonl"))
        .unwrap()
        .iter()
        .flat_map(|row| row.values.iter())
        .filter(|(name, _)| name == "actor/kl_coef")
        .map(|(_, value)| *value)
        .collect();
    // The policy starts as its own reference: nothing to hold it to, and the coefficient falls.
    assert!((coefficients[0] - 0.3).abs() < 1e-6 && coefficients[1] < 0.29);

    killed_it_ends_like(&expected, folder.path(), &args);
}

#[test]
fn contradicting_choices_leave_no_run_behind() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let args = ["--algo", "sapo", "--clip-low", "0.1"];
    let output = finish(learner(&run_dir, &args).spawn().unwrap());
    assert!(!output.status.success() && !run_dir.exists());
    assert_eq!(
        text(&output).trim_end(),
        "error: clip_low in [learner] needs a surrogate that clips and has no effect with \"sapo\": leave it out"
    );
}

#[test]
fn a_checkpoint_is_a_model_folder_and_commands_follow_publications() {
    let folder = tempfile::tempdir().unwrap();
    let command =
        "echo $TOR_VERSION >> $TOR_RUN_DIR/synced; test -s $TOR_WEIGHTS; test $TOR_VERSION != 2";
    let args = [
        "--steps",
        "3",
        "--after-sync",
        command,
        "--max-staleness",
        "1",
        "--freeze-vision",
        "--keep-checkpoints",
        "1",
    ];
    let run_dir = undisturbed(folder.path(), &args);
    assert_eq!(
        std::fs::read_to_string(run_dir.join("synced")).unwrap(),
        "0\n1\n2\n3\n"
    );

    let saved = checkpoint(&run_dir, 3);
    let config = ModelConfig::from_dir(&saved).unwrap();
    let trained = Checkpoint::open(&saved).unwrap();
    trained.check(&config).unwrap();
    ImageProcessor::from_dir(&saved, &config.vision).unwrap();
    let initial = Checkpoint::open(&Fixtures::open().unwrap().model()).unwrap();
    for name in initial.names() {
        let is_equal = initial.read_f32(name).unwrap() == trained.read_f32(name).unwrap();
        assert_eq!(is_equal, name.starts_with("visual."), "{name}");
    }
    let left = std::fs::read_dir(run_dir.join("checkpoints"))
        .unwrap()
        .count();
    assert_eq!(left, 1, "older checkpoints are removed");
}

#[test]
fn bad_starts_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let output = finish(learner(&run_dir, &["--model", "/nowhere"]).spawn().unwrap());
    assert!(
        !output.status.success() && text(&output).contains("/nowhere"),
        "{}",
        text(&output)
    );
    assert_eq!(
        text(&output).trim_end().lines().count(),
        1,
        "{}",
        text(&output)
    );
    assert!(!run_dir.exists());

    let mut first = learner(&run_dir, &[]).spawn().unwrap();
    wait_for(&weights::path(&run_dir, PolicyVersion(0)));
    let second = finish(learner(&run_dir, &["--resume"]).spawn().unwrap());
    send(first.id(), Signal::INT);
    assert!(first.wait().unwrap().success());
    let message = text(&second);
    assert!(
        !second.status.success()
            && message.contains(&format!("in use by another learner (pid {})", first.id())),
        "{message}"
    );

    let output = finish(
        learner(&run_dir, &["--device", "cuda:0", "--resume"])
            .spawn()
            .unwrap(),
    );
    assert!(
        !output.status.success() && text(&output).contains("libtorch_cuda.so"),
        "{}",
        text(&output)
    );
}
