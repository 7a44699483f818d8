//! ReMax: the baseline arrives in the records, and a run without it is refused.

use learner::sampling::Sampling;
use learner::source::{Source, SourceState};
use learner::tally::Tally;
use shared::config::GroupFilter;
use shared::control::{LearnerControl, Seat};
use shared::ids::Ticket;
use shared::record::GroupRecord;
use shared::run_dir;

use super::*;
use crate::dice::Dice;

#[test]
fn the_greedy_reward_is_each_groups_baseline() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--advantage", "remax", "--steps", "2", "--no-tor"];
    let run_dir = undisturbed(folder.path(), &args);
    let rows = read_metrics(&run_dir.join("metrics.jsonl")).unwrap();
    let dice = Dice::open();
    for (step, row) in (0..).zip(&rows) {
        // No group is filtered: the batches are four tickets each.
        let records = (step * 4..step * 4 + 4).map(|t| dice.record(Ticket(t), PolicyVersion(step)));
        let (mut greedy, mut advantages) = (Vec::new(), Vec::new());
        for record in records {
            let baseline = f64::from(record.greedy_reward.unwrap().total);
            greedy.push(baseline);
            let rewards = record.responses.iter().map(|one| one.reward.total);
            advantages.extend(rewards.map(|reward| f64::from(reward) - baseline));
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let least = advantages.iter().copied().fold(f64::INFINITY, f64::min);
        for (name, expected) in [
            ("critic/greedy_score", mean(&greedy)),
            ("critic/advantages/mean", mean(&advantages)),
            ("critic/advantages/min", least),
            ("train/groups", 4.0),
            ("sampled/groups", 4.0),
        ] {
            let known = row.values.iter().find(|(known, _)| known == name);
            let got = known.unwrap().1;
            assert!(
                (got - expected).abs() < 1e-6,
                "{name}: {got}, not {expected}"
            );
        }
    }
    assert_eq!(rows.len(), 2);
}

#[test]
fn rollouts_that_send_no_baseline_are_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let without_baseline = |record: &mut GroupRecord| record.greedy_reward = None;
    let _rollout = DiceRollout::spoiling(&run_dir, Shift::WithoutModel, without_baseline);
    let args = ["--advantage", "remax"];
    let output = finish(learner(&run_dir, &args).spawn().unwrap());
    assert!(!output.status.success());
    let text = text(&output);
    let last = text.trim_end().lines().last().unwrap();
    assert!(
        last.contains("error: --advantage remax needs the reward of a greedy response")
            && last.ends_with("start those of this build, which look at what the run asks for"),
        "{text}"
    );
}

/// It begins without ReMax, goes on with it, and ends without: each learner says what it needs.
#[test]
fn a_run_may_be_switched_to_remax_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let _rollout = DiceRollout::start(&run_dir, Shift::Endless);
    let asked = || {
        let seat = Seat::join(&run_dir, &|| false, &mut |_| ()).unwrap();
        seat.unwrap().is_greedy_asked()
    };
    let plain = ["--advantage", "dr-grpo", "--steps", "1"];
    let remax = ["--advantage", "remax", "--steps", "2", "--resume"];
    let back = ["--advantage", "dr-grpo", "--steps", "3", "--resume"];
    for (args, is_asked) in [(&plain[..], false), (&remax[..], true), (&back[..], false)] {
        let output = finish(learner(&run_dir, args).spawn().unwrap());
        assert!(output.status.success(), "{}", text(&output));
        // The page keeps what the last learner said; a new one takes the stop flag down.
        let _control = LearnerControl::create_or_open(&run_dir).unwrap();
        assert_eq!(asked(), is_asked, "{args:?}");
    }
}

#[test]
fn groups_kept_from_before_the_run_asked_for_a_baseline_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    run_dir::create(&run_dir).unwrap();
    let dice = Dice::open();
    let mut control = LearnerControl::create_or_open(&run_dir).unwrap();
    control.publish(PolicyVersion(0));
    let kept = |ticket: u64, has_baseline: bool| {
        let record = dice.record(Ticket(ticket), PolicyVersion(0));
        let greedy_reward = record.greedy_reward.filter(|_| has_baseline);
        GroupRecord {
            greedy_reward,
            ..record
        }
    };
    let state = SourceState {
        next_ticket: Ticket(4),
        awaited: vec![Ticket(1)],
        kept: vec![kept(0, false), kept(2, false), kept(3, true)],
        tally: Tally::default(),
    };
    let sampling = Sampling {
        batch_prompts: 4,
        max_rounds: 50,
        max_staleness: 2,
        group_filter: GroupFilter::Off,
        needs_greedy: true,
    };
    let source = Source::new(dice.config.clone(), sampling, state, &mut control).unwrap();
    assert_eq!(source.state().awaited, [0, 1, 2].map(Ticket));
    assert_eq!(source.state().kept, [kept(3, true)]);
    assert_eq!(source.tally().num_lacking, 2);
    assert_eq!(source.tally().num_stale, 0);
}
