//! The built programs end to end: a short training, crashes, bad input, help texts; and who imports whom.
//!
//! Wants the programs beside this test (`cargo test --workspace` builds them).
#![allow(missing_docs, reason = "a test binary")]

mod bad_input;
mod crash;
mod full_disk;
mod help;
mod layering;
mod read;
mod run;
mod training;
mod validation;
