//! `[learner]`: the objective, the token weights, the optimizer.

use clap::{Args, ValueEnum, ValueHint};
use serde::Serialize;

use super::device::Device;
use super::values::{
    above_one, at_least, below_one, fraction, non_negative, positive, switch, whole,
};

/// Keys of the table `[learner]`. `None` where the default depends on `--algo`: see [`super::resolve`].
#[derive(Args, Serialize, Debug, Clone, PartialEq)]
pub struct LearnerArgs {
    /// The objective that the token weights are applied to; it sets the defaults that name it below
    #[arg(long, value_enum, default_value_t = Algo::Dapo, help_heading = "Algorithm")]
    pub algo: Algo,

    /// Lower clip of the importance ratio: 1 - X (eqs. 2, 4) [default: 0.2]
    #[arg(long, value_name = "X", value_parser = below_one, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_low: Option<f64>,

    /// Upper clip of the importance ratio: 1 + X (eqs. 2, 4) [default: dapo 0.28, grpo 0.2]
    #[arg(long, value_name = "X", value_parser = non_negative, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_high: Option<f64>,

    /// Bounds the loss of a token with negative advantage at X times that advantage (dual clip, often 3) [default: off]
    #[arg(long, value_name = "X", value_parser = above_one, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_clip: Option<f64>,

    /// How tokens are averaged into the loss (eqs. 2, 4) [default: dapo token-mean, grpo sequence-mean]
    #[arg(long, value_enum, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Aggregation>,

    /// Divide the advantage by the group's standard deviation (eq. 3)
    #[arg(long, value_parser = switch, default_value_t = true, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Algorithm")]
    pub advantage_std: bool,

    /// Replace groups whose responses are all alike in this: they teach nothing [default: dapo accuracy, grpo off]
    ///
    /// They are made up for by further prompts, at most --sampling-rounds times.
    #[arg(long, value_enum, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_filter: Option<GroupFilter>,

    /// Weight of the KL divergence from the frozen reference (eq. 2) [default: dapo 0, grpo 0.01]
    #[arg(long, value_name = "X", value_parser = non_negative, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_coef: Option<f64>,

    /// Estimator of that divergence from the sampled tokens
    #[arg(long, value_enum, default_value_t = KlEstimator::K3, help_heading = "Algorithm")]
    pub kl_estimator: KlEstimator,

    /// Multiply the KL term by the token weights as well
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Algorithm")]
    pub kl_weighted: bool,

    /// Multiply each policy-gradient term by min(pi_old / pi_rollout, --importance-cap): truncated importance sampling
    ///
    /// It makes up for a rollout engine whose probabilities are not the learner's, such as a quantised one. pi_old is the
    /// learner's policy at the start of the step; the ratio that is clipped is then pi / pi_old.
    #[arg(long, value_enum, default_value_t = ImportanceCorrection::Auto, help_heading = "Algorithm")]
    pub importance_correction: ImportanceCorrection,

    /// Largest factor of --importance-correction
    #[arg(long, value_name = "X", default_value_t = 2.0, value_parser = positive, help_heading = "Algorithm")]
    pub importance_cap: f64,

    /// Weight of reasoning tokens, the overlap included (eqs. 10, 11); 0 = perception only
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = non_negative, help_heading = "Token weights")]
    pub alpha: f64,

    /// Weight of the tokens that are perception but not reasoning (eqs. 10, 11); 0 = reasoning only
    #[arg(long, value_name = "X", default_value_t = 0.5, value_parser = non_negative, help_heading = "Token weights")]
    pub beta: f64,

    /// Share of the response tokens in the reasoning set and in the perception set (eqs. 7, 9)
    #[arg(long, value_name = "X", default_value_t = 0.3, value_parser = fraction, help_heading = "Token weights")]
    pub rho: f64,

    /// Share in the reasoning set alone (eq. 7) [default: --rho]
    #[arg(long, value_name = "X", value_parser = fraction, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho_reasoning: Option<f64>,

    /// Share in the perception set alone (eq. 9) [default: --rho]
    #[arg(long, value_name = "X", value_parser = fraction, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho_perception: Option<f64>,

    /// Weight 1 for every token: the plain algorithm
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Token weights")]
    pub no_tor: bool,

    /// What tells that a token depends on the image (eq. 8)
    #[arg(long, value_enum, default_value_t = PerceptionSignal::LogpDiff, help_heading = "Token weights")]
    pub perception_signal: PerceptionSignal,

    /// Over which tokens the shares of --rho are taken (eqs. 7, 9)
    #[arg(long, value_enum, default_value_t = TorScope::Batch, help_heading = "Token weights")]
    pub tor_scope: TorScope,

    /// What happens to tokens of equal score at the cut
    #[arg(long, value_enum, default_value_t = TorTies::Shuffle, help_heading = "Token weights")]
    pub tor_ties: TorTies,

    /// What the weighted sum over tokens is divided by (eqs. 10, 11)
    #[arg(long, value_enum, default_value_t = TorNormaliser::ResponseTokens, help_heading = "Token weights")]
    pub tor_normaliser: TorNormaliser,

    /// Prompts per rollout batch, counted after the group filter
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least(1), help_heading = "Batch")]
    pub batch_prompts: usize,

    /// Prompts per optimizer step [default: --batch-prompts, strictly on-policy]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "Batch")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mini_batch_prompts: Option<usize>,

    /// Passes over each rollout batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least(1), help_heading = "Batch")]
    pub update_epochs: usize,

    /// How often a rollout batch may ask for groups until the group filter has left enough; a step then trains on what
    /// there is, and a run that has nothing left stops and says why
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least(1), help_heading = "Batch")]
    pub sampling_rounds: usize,

    /// Policy versions that a response may be behind the learner; 0 = strictly on-policy
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole, help_heading = "Batch")]
    pub max_staleness: u64,

    /// Rollout batches to train on
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = whole, help_heading = "Batch")]
    pub steps: u64,

    /// Learning rate
    #[arg(long, value_name = "X", default_value_t = 1e-6, value_parser = non_negative, help_heading = "Optimizer")]
    pub lr: f64,

    /// How the learning rate changes over the run
    #[arg(long, value_enum, default_value_t = Schedule::Constant, help_heading = "Optimizer")]
    pub schedule: Schedule,

    /// Optimizer steps over which the learning rate rises from 0
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole, help_heading = "Optimizer")]
    pub warmup_steps: u64,

    /// AdamW's decoupled weight decay
    #[arg(long, value_name = "X", default_value_t = 0.01, value_parser = non_negative, help_heading = "Optimizer")]
    pub weight_decay: f64,

    /// AdamW's decay of the mean of the gradients
    #[arg(long, value_name = "X", default_value_t = 0.9, value_parser = below_one, help_heading = "Optimizer")]
    pub adam_beta1: f64,

    /// AdamW's decay of the mean of their squares
    #[arg(long, value_name = "X", default_value_t = 0.999, value_parser = below_one, help_heading = "Optimizer")]
    pub adam_beta2: f64,

    /// Largest norm of the whole gradient
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = positive, help_heading = "Optimizer")]
    pub grad_clip: f64,

    /// Leave the vision tower as it is
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Optimizer")]
    pub freeze_vision: bool,

    /// Where the learner computes: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu, help_heading = "Machine")]
    pub device: Device,

    /// Compute threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "Machine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,

    /// Tokens that pass through the network at once. Memory and speed only: the result does not depend on it
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = at_least(1), help_heading = "Machine")]
    pub micro_batch_tokens: usize,

    /// Write a checkpoint every N rollout batches, and at the end; 0 = only at the end
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole, help_heading = "Checkpoints")]
    pub save_every: u64,

    /// How many checkpoints stay on disk
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least(1), help_heading = "Checkpoints")]
    pub keep_checkpoints: usize,

    /// Go on from the run folder's newest checkpoint, bit for bit
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Checkpoints")]
    #[serde(skip)]
    pub resume: bool,

    /// Shell command to run after each publication of weights, such as scripts/export_onnx.sh
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString, help_heading = "Checkpoints")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_sync: Option<String>,
}

/// The objective under the token weights.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Algo {
    /// Token mean, asymmetric clip, no KL, groups without contrast replaced (eq. 4; with ToR eq. 11)
    Dapo,
    /// Mean over responses, symmetric clip, KL to the reference (eq. 2; with ToR eq. 10)
    Grpo,
}

/// How per-token losses become one number.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// Sum over all response tokens divided by their number (eq. 4)
    TokenMean,
    /// Mean over responses of the mean over their tokens (eq. 2)
    SequenceMean,
}

/// Which groups dynamic sampling drops.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum GroupFilter {
    /// Groups in which all responses are right or all are wrong (eq. 4)
    Accuracy,
    /// Groups in which all responses have the same total reward
    Overall,
    /// None
    Off,
}

/// Estimators of KL(policy || reference) at a sampled token, d = reference logprob - policy logprob.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum KlEstimator {
    /// exp(d) - d - 1: unbiased, never negative
    K3,
    /// -d
    K1,
    /// d^2 / 2
    K2,
    /// |d|
    Abs,
    /// No KL term
    Off,
}

/// Over what the ratio pi_old / pi_rollout of truncated importance sampling is taken.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ImportanceCorrection {
    /// `token` where a record of the batch was generated below f32, else `off`
    Auto,
    /// Each token by itself
    Token,
    /// The product over the response
    Sequence,
    /// No correction: pi_rollout is taken for pi_old
    Off,
}

/// S of eq. 8 and the proxies of the paper's Table 5.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum PerceptionSignal {
    /// |logprob with the image - logprob without| (eq. 8)
    LogpDiff,
    /// |probability with - probability without|
    ProbDiff,
    /// |entropy with - entropy without|
    EntropyDiff,
    /// Logprob with the image - logprob without
    Signed,
    /// exp(d) - d - 1 with d = logprob without - logprob with
    K3,
}

/// Over which tokens the top share is taken.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TorScope {
    /// All response tokens of the rollout batch, after the group filter
    Batch,
    /// Each response by itself
    Response,
}

/// Tokens of equal score at the cut.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TorTies {
    /// Exactly ceil(rho N) tokens, ties drawn by the run's seed
    Shuffle,
    /// Every token whose score is at least that of the cut; can select far more than the share
    Threshold,
}

/// The normaliser of eqs. 10 and 11.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TorNormaliser {
    /// The number of response tokens
    ResponseTokens,
    /// The sum of the token weights
    Weights,
    /// The number of tokens with a weight above zero
    Selected,
}

/// Learning rate over the optimizer steps.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays
    Constant,
    /// Falls to 0 on a line
    Linear,
    /// Falls to 0 on half a cosine
    Cosine,
}
