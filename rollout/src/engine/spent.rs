//! Where the engine's time went.

use std::time::Duration;

/// Wall time by kind of work, since the engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Embedding the images of prompts.
    pub vision: Duration,
    /// Reading prompts.
    pub prefill: Duration,
    /// Passes with one token per row.
    pub decode: Duration,
    /// Drawing tokens and measuring their distributions.
    pub sampling: Duration,
    /// Scoring responses with the image blanked, images of blank prompts and measuring included.
    pub blank: Duration,
}

impl Spent {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.vision + self.prefill + self.decode + self.sampling + self.blank
    }

    /// What was spent since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            vision: self.vision.saturating_sub(before.vision),
            prefill: self.prefill.saturating_sub(before.prefill),
            decode: self.decode.saturating_sub(before.decode),
            sampling: self.sampling.saturating_sub(before.sampling),
            blank: self.blank.saturating_sub(before.blank),
        }
    }
}
