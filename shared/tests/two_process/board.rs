//! Tickets through the control page and the rings of several rollouts, all of them and the learner killed and replaced.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use shared::control::{LearnerControl, Seat, SeatStatus, Waiting};
use shared::ids::{PolicyVersion, Ticket};
use shared::ring::{Consumer, Producer};

use super::{Process, RING_BYTES, Random, append, frame, lines, note, word};

/// On a machine so busy that nobody gets anything done between two kills, the killing has to end.
const MAX_KILLS: u64 = 60;

/// Role: claims tickets and pushes one frame for each, until the run is over.
pub(super) fn roll_out(run_dir: &Path, number: u64) {
    let mut random = Random::new(number + u64::from(std::process::id()));
    // One that was started too late must not wait for another learner.
    let is_over = Cell::new(false);
    let seat = Seat::join(run_dir, &|| is_over.get(), &mut |reason| {
        is_over.set(reason == Waiting::Finished);
    });
    let Some(seat) = seat.unwrap() else { return };
    let mut producer = Producer::open_or_create(&seat.ring_path(), RING_BYTES).unwrap();
    while !seat.stopping() {
        seat.heartbeat().unwrap();
        match seat.claim() {
            Some(ticket) => {
                random.sleep_ms(2);
                assert!(
                    producer
                        .push(&frame(number, ticket.0), &|| seat.stopping())
                        .unwrap()
                );
                random.sleep_ms(1);
                seat.finish(ticket);
            }
            None => {
                seat.wait_work(Duration::from_millis(100)).unwrap();
            }
        }
    }
}

/// One turn of a learner: drains all rings, passes every ticket that arrived to `accept`, opens what the dead held.
fn turn(
    control: &mut LearnerControl,
    rings: &mut BTreeMap<PathBuf, Consumer>,
    have: &mut BTreeSet<u64>,
    accept: &mut dyn FnMut(u64, bool),
) {
    let mut out = Vec::new();
    for path in control.ring_paths() {
        let consumer = rings
            .entry(path)
            .or_insert_with_key(|path| Consumer::open(path).unwrap());
        while consumer.try_pop(&mut out).unwrap() {
            let (rollout, ticket) = (word(&out, 0), word(&out, 1));
            assert!(out == frame(rollout, ticket), "torn");
            accept(ticket, have.insert(ticket));
            control.retire(Ticket(ticket));
        }
    }
    control
        .reopen_dead(&|ticket| have.contains(&ticket.0))
        .unwrap();
    control.wait_records(Duration::from_millis(20)).unwrap();
}

/// Rollouts are killed and replaced: every ticket arrives exactly once, and no two processes ever shared a seat.
#[test]
fn every_ticket_arrives_exactly_once_though_rollouts_are_killed() {
    const TICKETS: u64 = 3000;
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::of_the_moment();
    let mut control = LearnerControl::create_or_open(folder.path()).unwrap();
    control.publish(PolicyVersion(0));
    let mut rollouts: Vec<Process> = (0..4)
        .map(|number| Process::start("rollout", folder.path(), number))
        .collect();
    let (mut rings, mut have, mut opened, mut killed) = (BTreeMap::new(), BTreeSet::new(), 0, 0);
    let mut doubled = 0;
    let mut next_kill = Instant::now();
    while have.len() < usize::try_from(TICKETS).unwrap() {
        // A batch at a time, as on-policy training does.
        while opened < TICKETS && control.tickets().len() < 32 {
            control.open(Ticket(opened)).unwrap();
            opened += 1;
        }
        turn(&mut control, &mut rings, &mut have, &mut |_, is_new| {
            doubled += u64::from(!is_new);
        });
        if killed < MAX_KILLS && Instant::now() > next_kill {
            next_kill = Instant::now() + Duration::from_micros(random.below(60_000));
            killed += 1;
            let which = usize::try_from(random.below(rollouts.len() as u64)).unwrap();
            rollouts.swap_remove(which).kill();
            rollouts.push(Process::start("rollout", folder.path(), 3 + killed));
            let live: Vec<_> = control
                .seats()
                .into_iter()
                .filter(|seat| seat.status == SeatStatus::Live)
                .collect();
            let pids: BTreeSet<_> = live.iter().map(|seat| seat.pid).collect();
            assert_eq!(pids.len(), live.len(), "a process has two seats");
        }
    }
    assert_eq!(doubled, 0);
    assert_eq!(have, (0..TICKETS).collect());
    assert_eq!(control.tickets(), []);
    // As many seats as ever lived at once, give or take one that was being replaced: the dead ones' are taken again.
    assert!(
        control.seats().len() <= 8,
        "{} seats",
        control.seats().len()
    );
    control.stop();
    for mut rollout in rollouts {
        while !rollout.has_ended() {
            thread::sleep(Duration::from_millis(5));
        }
    }
    eprintln!("{TICKETS} tickets, {killed} rollouts killed");
}

/// Role: a learner that notes each ticket it accepted; the note is its checkpoint.
pub(super) fn learn(run_dir: &Path, tickets: u64) {
    let path = run_dir.join("accepted");
    let mut have: BTreeSet<u64> = lines(&path)
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    let mut log = append(&path);
    let mut control = LearnerControl::create_or_open(run_dir).unwrap();
    control.publish(PolicyVersion(0));
    let mut rings = BTreeMap::new();
    let mut drain = |control: &mut LearnerControl, have: &mut BTreeSet<u64>| {
        turn(control, &mut rings, have, &mut |ticket, is_new| {
            if is_new {
                note(&mut log, &format!("{ticket}"));
            }
        });
    };
    // What an earlier learner left in the rings comes first: those tickets need not be issued again.
    drain(&mut control, &mut have);
    for ticket in 0..tickets {
        if !have.contains(&ticket) {
            control.open(Ticket(ticket)).unwrap();
        }
    }
    while have.len() < usize::try_from(tickets).unwrap() {
        drain(&mut control, &mut have);
    }
    control.stop();
}

/// Learner and rollouts are killed and replaced: the run ends with every ticket accepted once.
#[test]
fn a_run_survives_kills_of_the_learner_and_the_rollouts() {
    const TICKETS: u64 = 1500;
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::of_the_moment();
    let mut rollouts: Vec<Process> = (0..3)
        .map(|number| Process::start("rollout", folder.path(), number))
        .collect();
    let mut learner = Process::start("learner", folder.path(), TICKETS);
    let (mut killed_rollouts, mut killed_learners) = (0, 0);
    while !learner.has_ended() {
        random.sleep_ms(80);
        if killed_rollouts + killed_learners == MAX_KILLS {
            continue;
        }
        if random.below(2) == 0 {
            killed_rollouts += 1;
            let which = usize::try_from(random.below(rollouts.len() as u64)).unwrap();
            rollouts.swap_remove(which).kill();
            rollouts.push(Process::start(
                "rollout",
                folder.path(),
                2 + killed_rollouts,
            ));
        } else {
            killed_learners += 1;
            learner.kill();
            learner = Process::start("learner", folder.path(), TICKETS);
        }
    }
    let mut accepted: Vec<u64> = lines(&folder.path().join("accepted"))
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    accepted.sort_unstable();
    assert_eq!(accepted, (0..TICKETS).collect::<Vec<_>>());
    eprintln!(
        "{TICKETS} tickets, {killed_learners} learners and {killed_rollouts} rollouts killed"
    );
}
