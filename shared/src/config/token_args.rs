//! `[learner]`, the token weights.

use clap::Args;
use serde::Serialize;

use super::choices::{PerceptionSignal, TokenWeighting, TorNormaliser, TorScope, TorTies};
use super::values::{fraction, non_negative, switch};

/// Keys of `[learner]` that say what each response token counts. `None` where the default depends on other keys: see
/// [`super::resolve`].
#[derive(Args, Serialize, Debug, Clone, PartialEq)]
pub struct TokenArgs {
    /// How response tokens are weighed [default: tor]
    #[arg(long, value_enum, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_weights: Option<TokenWeighting>,

    /// Weight 1 for every token: the plain algorithm, --token-weights none
    #[arg(long, value_parser = switch, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Token weights")]
    pub no_tor: bool,

    /// Weight of reasoning tokens, the overlap included (eqs. 10, 11); 0 = perception only [default: 1]
    #[arg(long, value_name = "X", value_parser = non_negative, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,

    /// Weight of the tokens that are perception but not reasoning (eqs. 10, 11); 0 = reasoning only [default: 0.5]
    #[arg(long, value_name = "X", value_parser = non_negative, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,

    /// Share of the response tokens in the reasoning set and in the perception set (eqs. 7, 9) [default: 0.3, entropy 0.2,
    /// vppo 0.4]
    #[arg(long, value_name = "X", value_parser = fraction, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho: Option<f64>,

    /// Share in the reasoning set alone (eq. 7) [default: --rho]
    #[arg(long, value_name = "X", value_parser = fraction, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho_reasoning: Option<f64>,

    /// Share in the perception set alone (eq. 9) [default: --rho]
    #[arg(long, value_name = "X", value_parser = fraction, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho_perception: Option<f64>,

    /// What tells that a token depends on the image (eq. 8) [default: logp-diff, vppo k3]
    #[arg(long, value_enum, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perception_signal: Option<PerceptionSignal>,

    /// Over which tokens the shares of --rho are taken (eqs. 7, 9) [default: batch, vppo response]
    #[arg(long, value_enum, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tor_scope: Option<TorScope>,

    /// What happens to tokens of equal score at the cut
    #[arg(long, value_enum, default_value_t = TorTies::Shuffle, help_heading = "Token weights")]
    pub tor_ties: TorTies,

    /// What the weighted sum over tokens is divided by (eqs. 10, 11)
    #[arg(long, value_enum, default_value_t = TorNormaliser::ResponseTokens, help_heading = "Token weights")]
    pub tor_normaliser: TorNormaliser,

    /// vppo: factor of the advantage of the response that depends least on the image [default: 0.9]
    #[arg(long, value_name = "X", value_parser = non_negative, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vppo_min: Option<f64>,

    /// vppo: factor of the one that depends most [default: what makes the batch's mean factor 1]
    #[arg(long, value_name = "X", value_parser = non_negative, help_heading = "Token weights")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vppo_max: Option<f64>,
}
