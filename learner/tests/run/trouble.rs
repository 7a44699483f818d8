//! What a run meets on its way: signals, records with numbers that are none, gradients that are not finite.

use shared::record::GroupRecord;
use shared::telemetry::MetricsRow;

use super::*;

fn rows(run_dir: &Path) -> Vec<MetricsRow> {
    read_metrics(&run_dir.join("metrics.jsonl")).unwrap()
}

fn value(row: &MetricsRow, name: &str) -> f64 {
    let mut values = row.values.iter().filter(|(known, _)| known == name);
    values.next().unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn interrupted_once_it_finishes_its_step_saves_and_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let _rollout = DiceRollout::start(&run_dir, Shift::Endless);
    let args = ["--steps", "100000", "--save-every", "0"];
    let child = learner(&run_dir, &args).spawn().unwrap();
    wait_for(&weights::path(&run_dir, PolicyVersion(2)));
    send(child.id(), Signal::INT);
    let output = finish(child);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let last = rows(&run_dir).last().unwrap().step;
    assert!(last >= 2);
    assert!(checkpoint(&run_dir, last).is_dir(), "step {last} is saved");
    assert!(weights::path(&run_dir, PolicyVersion(last)).exists());
    let said = text(&output);
    assert!(said.contains("finishing this step, then saving"), "{said}");
    let ended = format!("stopped at step {last} of 100000; --resume goes on");
    assert!(said.contains(&ended), "{said}");
}

#[test]
fn interrupted_twice_it_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    // The first signal waits for a command that has no end.
    let command = "touch $TOR_RUN_DIR/started; exec sleep 60 > /dev/null 2>&1";
    let mut child = learner(&run_dir, &["--after-sync", command])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&run_dir.join("started"));
    send(child.id(), Signal::INT);
    sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    send(child.id(), Signal::INT);
    let started = Instant::now();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(60));
    assert!(!run_dir.join("checkpoints").exists(), "nothing is saved");
}

#[test]
fn a_number_that_is_none_is_refused_with_the_samples_id() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let spoil = |record: &mut GroupRecord| {
        if record.ticket.0 == 1 {
            record.sample_id = "geometry 17".to_owned();
            record.responses[1].entropies[0] = f32::NAN;
        }
    };
    let _rollout = DiceRollout::spoiling(&run_dir, Shift::Endless, spoil);
    let args = ["--steps", "1", "--group-filter", "off"];
    let output = finish(learner(&run_dir, &args).spawn().unwrap());
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let refusals = said
        .lines()
        .filter(|line| line.contains("[0] is NaN in sample \"geometry 17\""));
    assert_eq!(refusals.count(), 3, "{said}");
    assert!(
        said.contains("ticket 1 was refused again and again: the group is skipped"),
        "{said}"
    );
    let rows = rows(&run_dir);
    assert_eq!(value(&rows[0], "sampled/damaged"), 3.0);
    assert_eq!(value(&rows[0], "sampled/skipped"), 1.0);
    assert_eq!(value(&rows[0], "train/groups"), 4.0);
}

#[test]
fn a_gradient_that_is_not_finite_skips_its_update_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    // Rewards that a record may have, and no gradient can take.
    let spoil = |record: &mut GroupRecord| {
        if (4..8).contains(&record.ticket.0) {
            for response in &mut record.responses {
                response.reward.total *= 3e38;
            }
        }
    };
    let _rollout = DiceRollout::spoiling(&run_dir, Shift::Endless, spoil);
    let args = ["--steps", "3", "--algo", "dr-grpo", "--no-tor"];
    let more = ["--aggregation", "token-mean", "--keep-checkpoints", "9"];
    let output = finish(
        learner(&run_dir, &[&args[..], &more[..]].concat())
            .spawn()
            .unwrap(),
    );
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let skips: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("; update skipped"))
        .collect();
    assert!(
        skips.len() == 1 && skips[0].contains("step 2, update 1: the gradient norm is "),
        "{said}"
    );
    let rows = rows(&run_dir);
    let skipped: Vec<f64> = rows
        .iter()
        .map(|row| value(row, "actor/skipped_updates"))
        .collect();
    assert_eq!(skipped, [0.0, 1.0, 1.0]);
    assert!(value(&rows[0], "actor/grad_norm").is_finite());
    assert!(!value(&rows[1], "actor/grad_norm").is_finite());
    assert!(value(&rows[2], "actor/grad_norm").is_finite());
    let weights =
        |step: u64| std::fs::read(checkpoint(&run_dir, step).join("model.safetensors")).unwrap();
    assert!(weights(1) == weights(2), "nothing changed");
    assert!(weights(2) != weights(3));
}
