//! Weights made ready for an engine.

use super::session::{EngineModel, RowModel, StagedWeights};

/// A version of the weights as an engine takes it up.
#[derive(Debug)]
pub enum ReadyWeights {
    /// A model made of them, on the CPU: the first one, or one to go on with.
    Model(Box<EngineModel>),
    /// A model on a device, which is the first there.
    Device(Box<RowModel>),
    /// Later ones for it, to be written over those that it has.
    Staged(StagedWeights),
}

impl From<EngineModel> for ReadyWeights {
    fn from(model: EngineModel) -> Self {
        Self::Model(Box::new(model))
    }
}

impl From<RowModel> for ReadyWeights {
    fn from(model: RowModel) -> Self {
        Self::Device(Box::new(model))
    }
}

impl From<StagedWeights> for ReadyWeights {
    fn from(weights: StagedWeights) -> Self {
        Self::Staged(weights)
    }
}
