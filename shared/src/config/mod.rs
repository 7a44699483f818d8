//! One configuration for both programs.
//!
//! # Layout
//! - [`RunArgs`], [`RolloutArgs`] with [`DataArgs`] and [`VerifierArgs`], [`LearnerArgs`]: the keys. Each is written once, as a clap argument; a TOML key is the long flag's
//!   name with `_` for `-`, and its value passes through the flag's own parser
//! - [`load`]: defaults < the run folder's config.toml < `--config FILE` < the command line
//! - [`ObjectiveArgs`], [`TokenArgs`]: the two parts of [`LearnerArgs`] that are the algorithm; the choices are enums
//! - [`resolve`]: the defaults that depend on `--algo` and on other choices; what contradicts what is refused in `conflicts.rs`
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

mod choices;
mod conflicts;
mod data_args;
mod device;
mod error;
mod file;
mod learner_args;
mod load;
mod names;
pub(crate) mod nearest;
mod objective_args;
mod resolve;
mod rollout_args;
mod run_args;
mod save;
mod token_args;
mod values;
mod verifier_args;

use serde::Serialize;

pub use choices::{
    Advantage, Aggregation, Algo, GroupFilter, ImportanceCorrection, KlEstimator, KlIn,
    PerceptionSignal, Surrogate, TokenWeighting, TorNormaliser, TorScope, TorTies,
};
pub use data_args::DataArgs;
pub use device::{Device, Dtype};
pub use error::{Error, Result};
pub use learner_args::{LearnerArgs, Schedule};
pub use load::{Program, load};
pub use names::Names;
pub use nearest::{distance, nearest};
pub use objective_args::ObjectiveArgs;
pub use resolve::Resolved;
pub use rollout_args::{Blank, Engine, Entropy, NewWeights, RolloutArgs, TrtAttention};
pub use run_args::RunArgs;
pub use save::{FILE_NAME, save};
pub use token_args::TokenArgs;
pub use verifier_args::{FormatRule, GivenVerifier, VerifierArgs, VerifierMode};

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
