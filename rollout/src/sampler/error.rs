//! Why a row of logits gives no token.

/// Why a row gave no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The logits of a diverged (or wrongly read) model.
    #[error("logit of token {token} is {logit}: the weights give no distribution")]
    NotFinite {
        /// Its id.
        token: usize,
        /// What came.
        logit: f32,
    },
    /// A row without logits.
    #[error("a row of logits is empty")]
    NoLogits,
    /// Temperature must be positive.
    #[error("temperature {0}: expected a number above 0")]
    Temperature(f64),
    /// Every token is banned.
    #[error("no token may be drawn: all of the vocabulary is banned")]
    NothingAllowed,
    /// A token that the model has no logit for.
    #[error("token {token} is outside the vocabulary of {vocab_size}")]
    TokenRange {
        /// The id.
        token: u32,
        /// Logits in a row.
        vocab_size: usize,
    },
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, Error>;
