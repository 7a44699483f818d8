//! The choices of `[learner]`, one enum each. The learner's files of the same names have the formulas.

use clap::ValueEnum;
use serde::Serialize;

/// Presets: each sets the defaults of the single choices, see [`super::resolve`]. Any of them may be given beside it.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Algo {
    /// Token mean, asymmetric clip, no KL, groups without contrast replaced (eq. 4; with ToR eq. 11; 2503.14476)
    Dapo,
    /// Mean over responses, symmetric clip, KL to the reference (eq. 2; with ToR eq. 10; 2402.03300)
    Grpo,
    /// GRPO without its two biases: no standard deviation, a constant length as divisor, no KL (2503.20783)
    DrGrpo,
    /// Leave-one-out baseline, KL in the reward (2402.14740)
    Rloo,
    /// Advantages whitened over the batch, KL in the reward (2501.03262)
    ReinforcePlusPlus,
    /// The group's mean off first, then whitened over the batch; k2 KL in the loss (2501.03262)
    ReinforcePlusPlusBaseline,
    /// One importance ratio per response, tight clip, no KL (2507.18071)
    Gspo,
    /// Clipped weights on log-probabilities: no token loses its gradient; else as DAPO (2506.13585)
    Cispo,
    /// A soft gate instead of the clip, no KL (2511.20347)
    Sapo,
    /// Geometric mean of the ratios, clipped per token, no KL (2507.20673)
    Gmpo,
}

/// How rewards become advantages.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Advantage {
    /// (R - mean) / (std + 1e-6) over the group (eq. 3; 2402.03300)
    Grpo,
    /// R - mean over the group (2503.20783)
    DrGrpo,
    /// R - mean over the group's other responses (2402.14740)
    Rloo,
    /// R whitened over all response tokens of the batch (2501.03262)
    ReinforcePlusPlus,
    /// R - mean over the group, then whitened over all response tokens of the batch (2501.03262)
    ReinforcePlusPlusBaseline,
    /// (mean best reward of the k-subsets with the response - of all k-subsets) / (their std + 1e-6) (2508.10751)
    PassAtK,
    /// R - reward of a greedy response, which the rollouts make beside the others (2310.10505)
    Remax,
}

/// What stands for the policy's objective. r = pi / pi_old of a token, A its advantage.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Surrogate {
    /// min(r A, clip(r) A) (eqs. 2, 4; 1707.06347)
    Clip,
    /// min(s A, clip(s) A), s the geometric mean of the response's r, weighted by the token weights (2507.18071)
    Gspo,
    /// The same value per token, the gradient through each token by itself (2507.18071)
    GspoToken,
    /// clip(r), held fixed, times A log pi (2506.13585)
    Cispo,
    /// A 4 / tau sigmoid(tau (r - 1)) (2511.20347)
    Sapo,
    /// A times the geometric mean of the response's r, the log of each clipped to [-low, high] (2507.20673)
    Gmpo,
}

/// How per-token losses become one number.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// Sum over all response tokens divided by their number (eq. 4)
    TokenMean,
    /// Mean over responses of the mean over their tokens (eq. 2)
    SequenceMean,
    /// Sum over all response tokens divided by the number of responses times --aggregation-length (2503.20783)
    Constant,
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
    /// Not estimated: the sum over the vocabulary. A second pass of the reference per update
    Full,
    /// No KL term
    Off,
}

/// Where the KL term stands.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum KlIn {
    /// In the loss, with a gradient of its own
    Loss,
    /// In the reward: the sum over the response's tokens, times --kl-coef, is taken off
    Reward,
}

/// What is done about pi_old / pi_rollout where the rollout's probabilities are not the learner's.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ImportanceCorrection {
    /// `token` where a record of the batch was generated below f32, else `off`
    Auto,
    /// Each token times its own ratio, at most --importance-cap
    Token,
    /// Each token times the product over the response, at most --importance-cap
    Sequence,
    /// A response is dropped where the geometric mean of its ratios is outside [--importance-low, --importance-high]
    SequenceMask,
    /// Each token times its own ratio, and dropped where that is outside [--importance-low, --importance-high] (2510.18855)
    Icepop,
    /// No correction: pi_rollout is taken for pi_old
    Off,
}

/// How response tokens are weighed.
#[derive(ValueEnum, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TokenWeighting {
    /// alpha on the reasoning set, beta on the rest of the perception set, 0 elsewhere (eqs. 10, 11)
    Tor,
    /// 1 on the reasoning set, 0 elsewhere (Table 1)
    ReasoningOnly,
    /// 1 on the perception set, the overlap included, 0 elsewhere (Table 2)
    PerceptionOnly,
    /// 1 on the top fifth by entropy, 0 elsewhere (80/20, 2506.01939)
    Entropy,
    /// 1 on the top 40 % of each response by dependence on the image, and advantages scaled by its mean (2510.09285)
    Vppo,
    /// 1 everywhere: the plain algorithm
    None,
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
