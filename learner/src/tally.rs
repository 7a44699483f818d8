//! What came in for one batch, counted.

use serde::{Deserialize, Serialize};

/// What came in for one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)] // a checkpoint of before a count was known has none of it
pub struct Tally {
    /// Groups that arrived as they should, dropped ones included.
    pub num_groups: usize,
    /// Their responses.
    pub num_responses: usize,
    /// Their response tokens.
    pub num_tokens: usize,
    /// Sum of the accuracy rewards of the responses, dropped groups included.
    pub accuracy_sum: f64,
    /// Sum of the total rewards likewise.
    pub reward_sum: f64,
    /// Groups dropped because every response was right.
    pub num_all_right: usize,
    /// Groups dropped because every response was wrong.
    pub num_all_wrong: usize,
    /// Groups dropped because all total rewards were equal (`--group-filter overall`).
    pub num_all_equal: usize,
    /// Groups that the rollout could not make (a bad sample), or that were given up.
    pub num_skipped: usize,
    /// Records of a policy version that is too old (or not of this run), generated again.
    pub num_stale: usize,
    /// Records without the greedy baseline that the run needs, generated again.
    pub num_lacking: usize,
    /// Records that nobody waits for: a ticket that arrived twice.
    pub num_unexpected: usize,
    /// Records that could not be read.
    pub num_damaged: usize,
    /// Tickets opened again because their rollout died.
    pub num_reopened: usize,
    /// How often tickets were opened.
    pub num_rounds: usize,
    /// Tickets opened.
    pub num_opened: usize,
}

impl Tally {
    /// Why so few groups were kept, in words.
    #[must_use]
    pub fn reasons(&self) -> String {
        let parts = [
            (self.num_all_wrong, "all wrong"),
            (self.num_all_right, "all right"),
            (self.num_all_equal, "all of one reward"),
            (self.num_skipped, "skipped by the rollout"),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        format!(
            "of {} groups in {} rounds: {}",
            self.num_groups,
            self.num_rounds,
            parts.join(", ")
        )
    }

    /// Mean accuracy of all responses that came in, 0 to 1; NaN without any.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.accuracy_sum / self.num_responses as f64
    }
}
