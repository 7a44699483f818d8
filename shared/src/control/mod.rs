//! The control page: one mapped file per run, through which learner and rollouts agree on who generates what.
//!
//! # Layout
//!
//! - `page`: the file and its words; newest policy version, stop flag, whether groups need a greedy response, signals
//! - `board`: which tickets are open, held, or neither
//! - `seats`: a place per rollout process
//! - `validation`: whether the newest version is to be validated, and by whom it is being
//! - `process`: whether a process still lives
//! - `learner`, `rollout`: the two sides of it
//!
//! ```text
//! learner  open(ticket) ..................................................... receives the record, retire(ticket)
//! rollout                claim() -> generate -> push into its ring -> finish(ticket)
//! ticket   idle -> open -> held ------------------------------------> idle
//!                  ^----- release, or the process died
//! ```
//!
//! A record is in the ring before its ticket is finished, so a process killed between the two leaves a ticket that looks
//! unfinished though its record is there: the learner drains the ring first and says which tickets it has.
//! Both programs must see the same process ids: the same machine, the same container.

mod board;
mod learner;
mod page;
mod process;
mod rollout;
mod seats;
mod validation;

#[cfg(test)]
mod tests;

pub use board::{CAPACITY as BOARD_CAPACITY, TicketState};
pub use learner::LearnerControl;
pub use rollout::{Seat, Waiting};
pub use seats::{MAX_SEATS, SeatInfo, SeatStatus};
pub use validation::ValidationState;
