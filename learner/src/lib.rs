//! The learner: reads group records, applies the ToR-weighted policy update on libtorch, publishes the weights.
//!
//! # Layout
//!
//! A run:
//! - [`train`]: one training step
//! - [`run`]: all of them; `opening`, resuming, ending; [`summary`], [`signals`], [`after_sync`]
//! - [`source`]: records from the rings of all rollouts, [`admission`]: which of them the model can take, [`sampling`]: which of
//!   them a batch takes, [`ledger`] and [`tally`]: the book of tickets
//! - [`publish`]: parameters to the rollouts; [`validation`]: what they say of them
//! - [`checkpoint`]: a Hugging Face folder that a run goes on from exactly; [`adapter`]: LoRA's part of it, as PEFT has it;
//!   [`best`]: which one is to be kept
//! - [`metrics`]: a step's numbers
//!
//! The algorithm, plain data and arithmetic:
//! - [`batch`]: a rollout batch, response tokens in flat arrays; micro-batches
//! - [`advantage`]: how much better a response did than others
//! - [`token_weights`]: the sets of tokens and their weights
//! - [`reference_kl`]: KL to the reference over a batch, in the reward, its coefficient
//! - [`loss`]: surrogates, KL and entropy, with their derivatives
//! - [`update`]: mini-batches through network, loss and optimizer
//! - [`optimizer`]: AdamW, gradient clipping, learning-rate schedule
//!
//! The policy, on libtorch:
//! - [`model`]: Qwen2.5-VL; a group's prompt is computed once
//! - [`logprobs`]: its log-probabilities of response tokens, and the way back from their gradient
//!
//! Supervised training, which makes a start for all this:
//! - [`read`]: teaches the vision tower to read; [`labels`]: its column of the data set
//! - [`sft`]: teaches to write worked solutions
//! - [`supervised`]: what both share
//!
//! The machine: [`device`], [`memory`], [`plan`], [`allocator`], [`operator`], [`doctor`], [`bench`]
//!
//! Read `train.rs` first.

pub mod adapter;
pub mod admission;
pub mod advantage;
pub mod after_sync;
pub mod allocator;
pub mod batch;
pub mod bench;
pub mod best;
pub mod checkpoint;
mod clock;
pub mod device;
pub mod doctor;
pub mod labels;
pub mod ledger;
pub mod logprobs;
pub mod loss;
pub mod memory;
pub mod metrics;
pub mod model;
mod numbers;
mod opening;
pub mod operator;
pub mod optimizer;
pub mod plan;
pub mod publish;
pub mod read;
pub mod reference_kl;
pub mod run;
pub mod sampling;
pub mod sft;
pub mod signals;
pub mod source;
pub mod summary;
pub mod supervised;
pub mod tally;
#[cfg(test)]
mod test_records;
pub mod token_weights;
pub mod train;
pub mod update;
pub mod validation;
