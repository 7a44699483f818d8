//! The reading side alone, with staleness: learners that stop, die and go on from a checkpoint of any moment.

use std::cell::Cell;
use std::collections::BTreeSet;

use learner::sampling::Sampling;
use learner::source::{Next, Source, SourceState};
use learner::tally::Tally;
use shared::config::GroupFilter;
use shared::control::LearnerControl;
use shared::ids::{PolicyVersion, Ticket};
use shared::run_dir;

use crate::dice::{Dice, DiceRollout, Shift, hash, teaches};

const STEPS: u64 = 20;
const SAMPLING: Sampling = Sampling {
    batch_prompts: 4,
    max_rounds: 50,
    max_staleness: 2,
    group_filter: GroupFilter::Accuracy,
    needs_greedy: false,
};

/// What a learner knows; a copy of it is a checkpoint.
#[derive(Clone, Default)]
struct Progress {
    step: u64,
    trained: Vec<Ticket>,
    tallies: Vec<Tally>,
    source: SourceState,
}

impl Progress {
    /// Every ticket opened was trained on once, or waits for that, or is awaited, or teaches nothing.
    fn check(&self) {
        let kept = self.source.kept.iter().map(|record| record.ticket);
        let places: Vec<Ticket> = self.trained.iter().copied().chain(kept).collect();
        assert!(places.iter().all(|ticket| teaches(*ticket)));
        let all: Vec<Ticket> = places
            .into_iter()
            .chain(self.source.awaited.iter().copied())
            .collect();
        let distinct: BTreeSet<Ticket> = all.iter().copied().collect();
        assert_eq!(
            all.len(),
            distinct.len(),
            "a ticket is in two places: {all:?}"
        );
        let dropped: Vec<Ticket> = (0..self.source.next_ticket.0)
            .map(Ticket)
            .filter(|ticket| !distinct.contains(ticket))
            .collect();
        assert!(
            dropped.iter().all(|ticket| !teaches(*ticket)),
            "a ticket is lost: {dropped:?}"
        );

        let tallies = self.tallies.iter().chain([&self.source.tally]);
        let (mut num_dropped, mut num_groups, mut num_stale) = (0, 0, 0);
        for tally in tallies {
            num_dropped += tally.num_all_right + tally.num_all_wrong;
            num_groups += tally.num_groups;
            num_stale += tally.num_stale;
        }
        assert_eq!(num_dropped, dropped.len());
        // A group that grew too old while it waited came in once more.
        let once = dropped.len() + self.trained.len() + self.source.kept.len();
        assert!((once..=once + num_stale).contains(&num_groups));
    }
}

#[test]
fn with_staleness_every_ticket_ends_in_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    run_dir::create(&run_dir).unwrap();
    let dice = Dice::open();
    let _rollouts = [Shift::WithoutModel; 3].map(|shift| DiceRollout::start(&run_dir, shift));
    let mut draws = (0..).map(|index| hash(hash(index)) >> 8);
    let mut draw = |below: u64| draws.next().unwrap() % below;
    let mut saved = Progress::default();
    let (mut num_lives, mut num_ahead) = (0, 0);
    while saved.step < STEPS {
        let mut control = LearnerControl::create_or_open(&run_dir).unwrap();
        let mut now = saved.clone();
        control.publish(PolicyVersion(now.step));
        let state = now.source.clone();
        let mut source = Source::new(dice.config.clone(), SAMPLING, state, &mut control).unwrap();
        for _ in 0..draw(6) {
            let looks = Cell::new(draw(12));
            let is_stopping = || looks.replace(looks.get().saturating_sub(1)) == 0;
            let version = PolicyVersion(now.step);
            let next = source.next_batch(&mut control, version, &is_stopping, &|_| ());
            match next.unwrap() {
                Next::Batch(records, tally) => {
                    assert_eq!(records.len(), SAMPLING.batch_prompts);
                    for record in &records {
                        let made = record.responses[0].first_version;
                        assert!((now.step.saturating_sub(2)..=now.step).contains(&made.0));
                        num_ahead += u32::from(made < version);
                        assert_eq!(*record, dice.record(record.ticket, made));
                    }
                    now.trained
                        .extend(records.iter().map(|record| record.ticket));
                    now.tallies.push(tally);
                    now.step += 1;
                    control.publish(PolicyVersion(now.step));
                }
                Next::Stopped => {}
                Next::Starved(tally) => panic!("starved: {}", tally.reasons()),
            }
            now.source = source.state();
            now.check();
            if draw(2) == 0 {
                saved = now.clone();
            }
        }
        num_lives += 1;
        assert!(num_lives < 2000, "no progress");
    }
    assert!(
        num_lives > 3 && num_ahead > 0,
        "{num_lives} lives, {num_ahead} groups of older versions"
    );
}
