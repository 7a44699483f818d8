//! Both sides of a control page in one process; `tests/two_process.rs` has the kills.

use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::page::{self, Page};
use super::process::Process;
use super::*;
use crate::Error;
use crate::ids::{PolicyVersion, Ticket};

fn run() -> (TempDir, LearnerControl) {
    let run_dir = tempfile::tempdir().unwrap();
    let control = LearnerControl::create_or_open(run_dir.path()).unwrap();
    (run_dir, control)
}

fn join(run_dir: &Path) -> Seat {
    Seat::join(run_dir, &|| false, &mut |reason| {
        panic!("waits: {reason:?}")
    })
    .unwrap()
    .unwrap()
}

fn open(control: &mut LearnerControl, tickets: std::ops::Range<u64>) {
    for ticket in tickets {
        assert_eq!(control.open(Ticket(ticket)).unwrap(), TicketState::Open);
    }
}

fn numbers(tickets: &[Ticket]) -> Vec<u64> {
    tickets.iter().map(|ticket| ticket.0).collect()
}

/// Gives a seat to another process and kills that: what a killed rollout leaves.
fn kill_owner(run_dir: &Path, seat: usize) {
    let mut child = sleeper();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let start: u64 = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(19)
        .unwrap()
        .parse()
        .unwrap();
    let victim = Process::unpack(start << 22 | u64::from(child.id())).unwrap();
    assert!(victim.is_alive());
    let page = Page::open(&page::path(run_dir)).unwrap();
    page.seats().hand_over(seat, victim);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn sleeper() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}

#[test]
fn a_rollout_sees_what_each_learner_asks_of_its_groups() {
    let (run_dir, control) = run();
    let seat = join(run_dir.path());
    assert!(!seat.is_greedy_asked());
    control.ask_greedy(true);
    assert!(seat.is_greedy_asked());
    drop(control);
    let control = LearnerControl::create_or_open(run_dir.path()).unwrap();
    assert!(seat.is_greedy_asked(), "until the next one says otherwise");
    control.ask_greedy(false);
    assert!(!seat.is_greedy_asked());
}

#[test]
fn tickets_go_from_open_to_held_to_idle() {
    let (run_dir, mut control) = run();
    let seat = join(run_dir.path());
    assert_eq!(seat.claim(), None);
    open(&mut control, 5..8);
    assert_eq!(seat.claim(), Some(Ticket(5)));
    assert_eq!(seat.claim(), Some(Ticket(6)));
    assert_eq!(control.ticket(Ticket(5)), TicketState::Held { seat: 0 });
    seat.release(Ticket(5));
    assert_eq!(control.ticket(Ticket(5)), TicketState::Open);
    seat.finish(Ticket(6));
    assert_eq!(control.ticket(Ticket(6)), TicketState::Idle);
    assert_eq!(
        control.tickets(),
        [
            (Ticket(5), TicketState::Open),
            (Ticket(7), TicketState::Open)
        ]
    );
    // Opening is idempotent, and leaves what a living seat holds.
    assert_eq!(seat.claim(), Some(Ticket(5)));
    assert_eq!(
        control.open(Ticket(5)).unwrap(),
        TicketState::Held { seat: 0 }
    );
    assert_eq!(control.open(Ticket(7)).unwrap(), TicketState::Open);
    assert_eq!(numbers(&control.withdraw_open()), [7]);
    assert!(!control.withdraw(Ticket(7)));
    assert_eq!(seat.claim(), None);
    // Retired under the seat's hands: finishing changes nothing.
    control.retire(Ticket(5));
    seat.finish(Ticket(5));
    assert_eq!(control.tickets(), []);
}

#[test]
fn a_refused_record_is_opened_again_before_its_seat_finishes() {
    let (run_dir, mut control) = run();
    let (seat, other) = (join(run_dir.path()), join(run_dir.path()));
    open(&mut control, 0..1);
    assert_eq!(seat.claim(), Some(Ticket(0)));
    control.reopen(Ticket(0)).unwrap();
    // The seat may not have it twice; another one may have it.
    assert_eq!(seat.claim(), None);
    assert_eq!(other.claim(), Some(Ticket(0)));
    seat.finish(Ticket(0));
    assert_eq!(control.ticket(Ticket(0)), TicketState::Held { seat: 1 });
    other.finish(Ticket(0));
    control.reopen(Ticket(0)).unwrap();
    assert_eq!(seat.claim(), Some(Ticket(0)));
}

#[test]
fn the_board_goes_round_and_says_when_it_is_full() {
    let (run_dir, mut control) = run();
    let seat = join(run_dir.path());
    open(&mut control, 0..BOARD_CAPACITY);
    let error = control.open(Ticket(BOARD_CAPACITY)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::BoardFull {
                ticket: 16384,
                base: 0,
                capacity: 16384
            }
        ),
        "{error}"
    );
    assert_eq!(seat.claim(), Some(Ticket(0)));
    seat.finish(Ticket(0));
    open(&mut control, BOARD_CAPACITY..BOARD_CAPACITY + 1);
    assert_eq!(control.ticket(Ticket(0)), TicketState::Idle);
    assert_eq!(control.withdraw_open().len(), 16384);
    // Back, as after a resume, and far ahead.
    open(&mut control, 3..5);
    assert_eq!(seat.claim(), Some(Ticket(3)));
    control.retire(Ticket(3));
    control.retire(Ticket(4));
    open(&mut control, (1 << 47)..(1 << 47) + 2);
    open(&mut control, (1 << 47) - 1..(1 << 47));
    assert_eq!(seat.claim(), Some(Ticket((1 << 47) - 1)));
    assert!(control.open(Ticket(Ticket::MAX.0 + 1)).is_err());
}

#[test]
fn a_dead_seats_tickets_come_back_once_its_ring_was_drained() {
    let (run_dir, mut control) = run();
    let seat = join(run_dir.path());
    open(&mut control, 0..4);
    for _ in 0..3 {
        seat.claim().unwrap();
    }
    let none = |_: Ticket| false;
    assert_eq!(control.reopen_dead(&none).unwrap(), []);
    control.wait_records(Duration::ZERO).unwrap();
    kill_owner(run_dir.path(), 0);
    assert_eq!(control.ticket(Ticket(1)), TicketState::Dead { seat: 0 });
    assert_eq!(control.seats()[0].status, SeatStatus::Dead);
    // First call: noticed only. The wait after it doesn't sleep.
    assert_eq!(control.reopen_dead(&none).unwrap(), []);
    assert!(control.wait_records(Duration::from_secs(600)).unwrap());
    // Ticket 1 was found in the ring meanwhile.
    let reopened = control.reopen_dead(&|ticket| ticket == Ticket(1)).unwrap();
    assert_eq!(numbers(&reopened), [0, 2]);
    assert_eq!(control.ticket(Ticket(1)), TicketState::Idle);
    assert_eq!(control.reopen_dead(&none).unwrap(), []);

    // A new process takes the dead one's seat, and what that held is not its.
    let next = join(run_dir.path());
    assert_eq!(next.index(), 0);
    assert_eq!(next.claim(), Some(Ticket(0)));
    kill_owner(run_dir.path(), 0);
    let third = join(run_dir.path());
    assert_eq!(third.index(), 0);
    assert_eq!(control.ticket(Ticket(0)), TicketState::Dead { seat: 0 });
    assert_eq!(control.reopen_dead(&none).unwrap(), []);
    assert_eq!(numbers(&control.reopen_dead(&none).unwrap()), [0]);
    assert_eq!(third.claim(), Some(Ticket(0)));
    assert_eq!(control.reopen_dead(&none).unwrap(), []);
    assert_eq!(control.reopen_dead(&none).unwrap(), []);
    // Their owner words are no longer theirs: they must not free the seat of the third.
    assert!(
        seat.heartbeat().is_ok(),
        "same process: the seat is its again"
    );
    std::mem::forget((seat, next));
}

#[test]
fn leaving_gives_back_what_is_unfinished() {
    let (run_dir, mut control) = run();
    open(&mut control, 0..2);
    let seat = join(run_dir.path());
    assert_eq!(seat.claim(), Some(Ticket(0)));
    assert_eq!(seat.num_claimed(), 1);
    drop(seat);
    assert_eq!(control.ticket(Ticket(0)), TicketState::Open);
    let seats = control.seats();
    assert_eq!(
        (seats.len(), seats[0].status, seats[0].pid),
        (1, SeatStatus::Left, None)
    );
    assert!(seats[0].ring_path.ends_with("rings/seat-00.ring"));
    assert_eq!(control.ring_paths(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn there_are_64_seats() {
    let (run_dir, control) = run();
    let seats: Vec<Seat> = (0..MAX_SEATS).map(|_| join(run_dir.path())).collect();
    let taken: Vec<usize> = seats.iter().map(Seat::index).collect();
    assert_eq!(taken, (0..MAX_SEATS).collect::<Vec<_>>());
    let error = Seat::join(run_dir.path(), &|| false, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NoSeat { max: 64, .. }));
    assert!(
        control
            .seats()
            .iter()
            .all(|seat| seat.status == SeatStatus::Live)
    );
}

#[test]
fn one_learner_at_a_time_and_the_next_goes_on() {
    let (run_dir, mut control) = run();
    assert_eq!((control.generation(), control.version()), (1, None));
    let error = LearnerControl::create_or_open(run_dir.path())
        .unwrap_err()
        .to_string();
    let expected = format!("is in use by another learner (pid {})", std::process::id());
    assert!(error.contains(&expected), "{error}");

    let seat = join(run_dir.path());
    assert_eq!(seat.version(), None);
    control.publish(PolicyVersion(0));
    control.publish(PolicyVersion(4));
    open(&mut control, 0..2);
    assert_eq!(seat.claim(), Some(Ticket(0)));
    control.stop();
    assert!(seat.stopping() && seat.is_learner_alive());
    drop(control);
    assert!(!seat.is_learner_alive());

    let control = LearnerControl::create_or_open(run_dir.path()).unwrap();
    assert_eq!(
        (control.generation(), control.version()),
        (2, Some(PolicyVersion(4)))
    );
    assert_eq!(control.ticket(Ticket(0)), TicketState::Held { seat: 0 });
    assert!(!seat.stopping() && seat.is_learner_alive());
    // Back to a checkpoint, and the same version once more: the count of announcements shows it.
    control.publish(PolicyVersion(2));
    assert_eq!(
        (seat.version(), seat.publications()),
        (Some(PolicyVersion(2)), 3)
    );
    control.publish(PolicyVersion(2));
    assert_eq!((seat.publications(), seat.learner_generation()), (4, 2));
    seat.heartbeat().unwrap();
}

#[test]
fn a_rollout_waits_for_its_learner_and_says_so() {
    let run_dir = tempfile::tempdir().unwrap();
    let path = run_dir.path().to_owned();
    let rollout = thread::spawn(move || {
        let mut reasons = Vec::new();
        let seat = Seat::join(&path, &|| false, &mut |reason| reasons.push(reason)).unwrap();
        (seat, reasons)
    });
    thread::sleep(Duration::from_millis(250));
    let control = LearnerControl::create_or_open(run_dir.path()).unwrap();
    let (seat, reasons) = rollout.join().unwrap();
    assert!(seat.is_some());
    assert_eq!(reasons, [Waiting::NoLearner]);
    control.stop();
    let mut reasons = Vec::new();
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 3;
    let seat = Seat::join(run_dir.path(), &stop, &mut |reason| reasons.push(reason)).unwrap();
    assert!(seat.is_none());
    assert_eq!(reasons, [Waiting::Finished]);
}

#[test]
fn both_sides_wake_each_other() {
    let (run_dir, mut control) = run();
    let seat = join(run_dir.path());
    while seat.wait_work(Duration::ZERO).unwrap() {}
    while control.wait_records(Duration::ZERO).unwrap() {}
    assert!(!seat.wait_work(Duration::from_millis(20)).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(seat.wait_work(Duration::from_secs(600)).unwrap());
            seat.finish(seat.claim().unwrap());
        });
        thread::sleep(Duration::from_millis(20));
        open(&mut control, 0..1);
        while control.ticket(Ticket(0)) != TicketState::Idle {
            assert!(control.wait_records(Duration::from_secs(600)).unwrap());
        }
    });
}

#[test]
fn a_page_of_a_machine_that_went_down_starts_anew() {
    let (run_dir, mut control) = run();
    let seat = join(run_dir.path());
    control.publish(PolicyVersion(3));
    open(&mut control, 0..2);
    seat.claim().unwrap();
    drop(control);
    let page = Page::open(&page::path(run_dir.path())).unwrap();
    page.reset(page.machine() + 1);
    let mut reasons = Vec::new();
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 2;
    assert!(
        Seat::join(run_dir.path(), &stop, &mut |reason| reasons.push(reason))
            .unwrap()
            .is_none()
    );
    assert_eq!(reasons, [Waiting::OtherMachine]);
    let control = LearnerControl::create_or_open(run_dir.path()).unwrap();
    assert_eq!((control.version(), control.tickets()), (None, vec![]));
    let error = seat.heartbeat().unwrap_err().to_string();
    assert!(error.contains("lost its seat"), "{error}");
    join(run_dir.path()).heartbeat().unwrap();
}

#[test]
fn a_deleted_run_folder_is_noticed() {
    let (run_dir, _control) = run();
    let seat = join(run_dir.path());
    std::fs::remove_dir_all(run_dir.path()).unwrap();
    let error = seat.heartbeat().unwrap_err().to_string();
    assert!(error.contains("the run folder was deleted"), "{error}");
}

#[test]
fn a_page_of_another_layout_is_refused() {
    let (run_dir, control) = run();
    drop(control);
    let path = page::path(run_dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 7;
    std::fs::write(&path, bytes).unwrap();
    let learner = LearnerControl::create_or_open(run_dir.path())
        .unwrap_err()
        .to_string();
    let rollout = Seat::join(run_dir.path(), &|| false, &mut |_| {})
        .unwrap_err()
        .to_string();
    for error in [learner, rollout] {
        assert!(
            error.contains(
                "layout version is 7, expected 1; stop both programs and delete the file"
            ),
            "{error}"
        );
    }
}

#[test]
fn a_validation_is_asked_with_its_announcement_and_answered_once() {
    let (run_dir, control) = run();
    let (seat, other) = (join(run_dir.path()), join(run_dir.path()));
    control.publish(PolicyVersion(0));
    assert_eq!(control.validation(), None);
    assert!(!seat.claim_validation(seat.publications()));

    control.publish_to_validate(PolicyVersion(1));
    assert_eq!(control.validation(), Some(ValidationState::Asked));
    let publication = seat.publications();
    assert!(seat.is_validation_asked(publication));
    assert!(
        !seat.claim_validation(publication - 1),
        "its weights are not loaded yet"
    );
    assert!(seat.claim_validation(publication));
    assert!(!other.claim_validation(publication) && !other.holds_validation(publication));
    assert_eq!(
        control.validation(),
        Some(ValidationState::Held { seat: 0 })
    );
    // Whoever leaves gives it back.
    drop(seat);
    assert_eq!(control.validation(), Some(ValidationState::Asked));
    assert!(other.claim_validation(publication) && other.finish_validation(publication));
    assert_eq!(control.validation(), Some(ValidationState::Done));
    assert!(!other.finish_validation(publication));
    // An answer that cannot be used, and the next version, which is not to be validated.
    control.validate_again();
    assert!(other.claim_validation(publication));
    control.publish(PolicyVersion(2));
    assert_eq!(control.validation(), None);
    // Another learner asks for the same version once more: the answer under way is of other weights.
    drop(control);
    let control = LearnerControl::create_or_open(run_dir.path()).unwrap();
    control.publish_to_validate(PolicyVersion(1));
    assert!(!other.holds_validation(publication) && !other.finish_validation(publication));
    assert_eq!(control.validation(), Some(ValidationState::Asked));
    assert!(other.claim_validation(control.publications()));
}

#[test]
fn a_dead_seats_validation_is_asked_again() {
    let (run_dir, control) = run();
    let seat = join(run_dir.path());
    control.publish_to_validate(PolicyVersion(0));
    assert!(seat.claim_validation(1));
    kill_owner(run_dir.path(), 0);
    assert_eq!(control.validation(), Some(ValidationState::Asked));
    let next = join(run_dir.path());
    assert_eq!(next.index(), 0);
    assert!(!seat.holds_validation(1) && !seat.finish_validation(1));
    assert!(next.claim_validation(1) && !seat.holds_validation(1));
    std::mem::forget(seat);
}
