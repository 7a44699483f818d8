//! One configuration for both programs.
//!
//! # Layout
//! - [`RunArgs`], [`RolloutArgs`], [`LearnerArgs`]: the keys. Each is written once, as a clap argument; a TOML key is the long flag's
//!   name with `_` for `-`, and its value passes through the flag's own parser
//! - [`load`]: defaults < the run folder's config.toml < `--config FILE` < the command line
//! - [`resolve`]: the defaults that depend on `--algo`
//! - [`save`]: writes the run folder's config.toml
//!
//! ```toml
//! [run]
//! model = "models/geo-mini/model"
//!
//! [rollout]
//! group_size = 8
//!
//! [learner]
//! algo = "dapo"
//! rho = 0.3
//! ```

mod device;
mod error;
mod file;
mod learner_args;
mod load;
mod nearest;
mod resolve;
mod rollout_args;
mod run_args;
mod save;
mod values;

use serde::Serialize;

pub use device::Device;
pub use error::{Error, Result};
pub use learner_args::{
    Aggregation, Algo, GroupFilter, ImportanceCorrection, KlEstimator, LearnerArgs,
    PerceptionSignal, Schedule, TorNormaliser, TorScope, TorTies,
};
pub use load::{Program, load};
pub use resolve::Resolved;
pub use rollout_args::{Blank, Engine, Entropy, FormatRule, NewWeights, RolloutArgs, VerifierMode};
pub use run_args::RunArgs;
pub use save::{FILE_NAME, save};

/// Everything that a run was told. Serialized, it is the run folder's config.toml.
#[derive(Serialize, Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// `[run]`
    pub run: RunArgs,
    /// `[rollout]`
    pub rollout: RolloutArgs,
    /// `[learner]`
    pub learner: LearnerArgs,
}

#[cfg(test)]
mod tests;
