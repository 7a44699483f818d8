//! The two numbers that everything else is filed under.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A group's number in the run. It alone fixes the prompt and the random streams of its responses.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Ticket(pub u64);

/// How many optimizer rounds the weights have seen; version 0 is the model the run started from.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PolicyVersion(pub u64);

impl Ticket {
    /// The largest ticket of a run: 48 bits, so that a ticket and its state share one atomic word.
    pub const MAX: Self = Self((1 << 48) - 1);
}

impl PolicyVersion {
    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}
