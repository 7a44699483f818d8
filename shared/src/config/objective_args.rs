//! `[learner]`, the objective: advantages, surrogate, aggregation, KL, importance correction.

use clap::Args;
use serde::Serialize;

use super::choices::{
    Advantage, Aggregation, Algo, GroupFilter, ImportanceCorrection, KlEstimator, KlIn, Surrogate,
};
use super::values::{above_one, at_least, finite, non_negative, positive, share, switch};

/// Keys of `[learner]` that say what is maximised. `None` where the default depends on other keys: see [`super::resolve`].
#[derive(Args, Serialize, Debug, Clone, PartialEq)]
pub struct ObjectiveArgs {
    /// The objective that the token weights are applied to; it sets the defaults that name it below
    #[arg(long, value_enum, default_value_t = Algo::Dapo, help_heading = "Algorithm")]
    pub algo: Algo,

    /// How rewards become advantages [default: that of the algo, grpo for most]
    #[arg(long, value_enum, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advantage: Option<Advantage>,

    /// With --advantage grpo: divide by the group's standard deviation (eq. 3) [default: true]
    #[arg(long, value_parser = switch, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advantage_std: Option<bool>,

    /// k of --advantage pass-at-k, below the group_size of [rollout] [default: 4, or what that allows]
    #[arg(long, value_name = "K", value_parser = at_least(1), help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_k: Option<usize>,

    /// What is maximised per token or response; with token weights see `learner/src/loss.rs` [default: that of the algo, clip
    /// for most]
    #[arg(long, value_enum, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surrogate: Option<Surrogate>,

    /// Lower clip of the importance ratio: 1 - X (eqs. 2, 4); with gmpo exp(-X) [default: 0.2, cispo none, gspo 3e-4, gmpo 0.4]
    #[arg(long, value_name = "X", value_parser = share, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_low: Option<f64>,

    /// Upper clip of the importance ratio: 1 + X (eqs. 2, 4); with gmpo exp(X) [default: dapo 0.28, cispo 5, gspo 4e-4, gmpo
    /// 0.4, else 0.2]
    #[arg(long, value_name = "X", value_parser = non_negative, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_high: Option<f64>,

    /// Bounds the loss of a token with negative advantage at X times that advantage (dual clip, often 3) [default: off]
    #[arg(long, value_name = "X", value_parser = above_one, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_clip: Option<f64>,

    /// tau of --surrogate sapo where the advantage is positive [default: 1]
    #[arg(long, value_name = "X", value_parser = positive, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sapo_tau_positive: Option<f64>,

    /// tau of --surrogate sapo elsewhere [default: 1.05]
    #[arg(long, value_name = "X", value_parser = positive, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sapo_tau_negative: Option<f64>,

    /// How tokens are averaged into the loss (eqs. 2, 4) [default: dapo, reinforce-plus-plus and cispo token-mean, dr-grpo
    /// constant, else sequence-mean]
    #[arg(long, value_enum, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Aggregation>,

    /// Length of --aggregation constant [default: max_response_tokens of [rollout]]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation_length: Option<usize>,

    /// Take no gradient from responses that were cut at the length limit; they still count in their group's advantages and
    /// in every divisor (DAPO's overlong filtering)
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Algorithm")]
    pub mask_truncated: bool,

    /// Replace groups whose responses are all alike in this: they teach nothing [default: dapo and cispo accuracy, else off;
    /// with --advantage remax off]
    ///
    /// They are made up for by further prompts, at most --sampling-rounds times.
    #[arg(long, value_enum, help_heading = "Algorithm")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_filter: Option<GroupFilter>,

    /// Reward for the policy's entropy over the vocabulary, averaged like the loss without token weights; below 0 a penalty
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = finite, allow_negative_numbers = true)]
    #[arg(help_heading = "Algorithm")]
    pub entropy_coef: f64,

    /// gamma of PAPO: reward for KL(policy || policy without the image), k3 of the sampled tokens, the recorded logprobs
    /// without the image taken as constants (2507.06448 differentiates them too)
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = non_negative, help_heading = "Algorithm")]
    pub perception_kl_coef: f64,

    /// Weight of the KL divergence from the frozen reference (eq. 2) [default: grpo, rloo and both reinforce-plus-plus 0.01,
    /// else 0]
    #[arg(long, value_name = "X", value_parser = non_negative, help_heading = "KL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_coef: Option<f64>,

    /// Estimator of that divergence from the sampled tokens [default: k1 in the reward, reinforce-plus-plus-baseline k2,
    /// else k3]
    #[arg(long, value_enum, help_heading = "KL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_estimator: Option<KlEstimator>,

    /// Where it stands [default: rloo and reinforce-plus-plus reward, else loss]
    #[arg(long, value_enum, help_heading = "KL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_in: Option<KlIn>,

    /// Multiply the KL term by the token weights as well
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "KL")]
    pub kl_weighted: bool,

    /// Adapt --kl-coef so that the mean KL per token stays near X nats (1909.08593) [default: fixed]
    ///
    /// After each rollout batch of n responses: coef *= 1 + clip(kl / X - 1, -0.2, 0.2) n / horizon, that factor itself
    /// between 0.5 and 2.
    #[arg(long, value_name = "X", value_parser = positive, help_heading = "KL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_target: Option<f64>,

    /// Responses over which --kl-target takes effect [default: 10000]
    #[arg(long, value_name = "N", value_parser = at_least(1), help_heading = "KL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_horizon: Option<usize>,

    /// Correct each policy-gradient term by pi_old / pi_rollout, such as by min(pi_old / pi_rollout, --importance-cap):
    /// truncated importance sampling
    ///
    /// It makes up for a rollout engine whose probabilities are not the learner's, such as a quantised one. pi_old is the
    /// learner's policy at the start of the step; the ratio that is clipped is then pi / pi_old.
    #[arg(long, value_enum, default_value_t = ImportanceCorrection::Auto, help_heading = "Off-policy")]
    pub importance_correction: ImportanceCorrection,

    /// Largest factor of --importance-correction token and sequence [default: 2]
    #[arg(long, value_name = "X", value_parser = positive, help_heading = "Off-policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance_cap: Option<f64>,

    /// Lowest ratio that is kept [default: icepop 0.5, sequence-mask 0.9]
    #[arg(long, value_name = "X", value_parser = non_negative, help_heading = "Off-policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance_low: Option<f64>,

    /// Highest ratio that is kept [default: icepop 5, sequence-mask 1.1]
    #[arg(long, value_name = "X", value_parser = positive, help_heading = "Off-policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance_high: Option<f64>,
}
