//! Token weights: which response tokens reason, which perceive, and what each counts in the loss
//! (equations 6, 7, 9, 10 and 11).
//!
//! T_r is the top share by entropy, T_p the top share by sensitivity to the image; the weightings differ in what the two
//! sets count, in their shares and scopes (`shared::config::resolve`):
//!
//! | `--token-weights` | T_r alone | T_p alone | both | share, scope |
//! |---|---|---|---|---|
//! | `tor` (2603.25077) | alpha | beta | alpha | 0.3, batch |
//! | `reasoning-only` (its Table 1) | 1 | 0 | 1 | 0.3, batch |
//! | `perception-only` (its Table 2) | 0 | 1 | 1 | 0.3, batch |
//! | `entropy` (80/20, 2506.01939) | 1 | 0 | 1 | 0.2, batch |
//! | `vppo` (2510.09285) | 0 | 1 | 1 | 0.4, response; and [`Shaping`] of the advantages |
//! | `none` | 1 | 1 | 1 | tokens in neither count 1 too |

use std::ops::Range;

use rayon::prelude::*;
use shared::config::{PerceptionSignal, Resolved, TokenArgs, TokenWeighting, TorScope};

use crate::batch::Batch;
use crate::numbers::narrow;
use ranks::rank_correlation;
use selection::top_share;

mod ranks;
mod selection;
mod shaping;

pub use selection::Ties;
pub use shaping::Shaping;

/// What decides the sets and the weights.
#[derive(Clone, Copy, Debug)]
pub struct TorSettings {
    /// Weight of a token that is in the reasoning set only (1.0 in the paper).
    pub alpha: f64,
    /// Weight of a token that is in the perception set only (0.5 in the paper).
    pub beta: f64,
    /// Weight of a token in both sets (alpha in the paper).
    pub overlap: f64,
    /// Share of the tokens that the reasoning set takes, 0 to 1.
    pub rho_reasoning: f64,
    /// Share of the tokens that the perception set takes, 0 to 1.
    pub rho_perception: f64,
    /// What is compared between the passes with and without the image.
    pub signal: PerceptionSignal,
    /// Whether the cut is made over the batch or in each response.
    pub scope: TorScope,
    /// What happens at the cut.
    pub ties: Ties,
    /// How advantages are scaled by the responses' sensitivities, if at all.
    pub shaping: Option<Shaping>,
}

/// The sets and weights of one rollout batch; every array is [N], N response tokens.
#[derive(Clone, Debug, Default)]
pub struct TokenWeights {
    /// w of equations 10 and 11.
    pub weights: Vec<f32>,
    /// T_r (equations 6 and 7).
    pub is_reasoning: Vec<bool>,
    /// T_p (equation 9).
    pub is_perception: Vec<bool>,
    /// What each response's advantage is multiplied by; empty where advantages stay, [responses].
    pub advantage_factors: Vec<f32>,
    /// What to show of them; `None` where every weight is 1.
    pub shares: Option<Shares>,
}

/// How the sets lie in the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Part of the tokens in T_r.
    pub reasoning: f64,
    /// Part of the tokens in T_p.
    pub perception: f64,
    /// Part of the tokens in both.
    pub overlap: f64,
    /// The lowest entropy that is in T_r.
    pub entropy_threshold: f64,
    /// The lowest sensitivity that is in T_p.
    pub sensitivity_threshold: f64,
    /// Spearman's rank correlation of entropy and sensitivity over the batch, -1 to 1; 0 when either is constant.
    pub rank_correlation: f64,
}

impl TokenWeights {
    /// What a run's configuration gives a batch; `seed` draws ties.
    #[must_use]
    pub fn of(batch: &Batch, args: &TokenArgs, resolved: &Resolved, seed: u64) -> Self {
        if resolved.token_weights == TokenWeighting::None {
            return Self::ones(batch.num_tokens());
        }
        let shaping = Shaping {
            min: resolved.vppo_min,
            max: args.vppo_max,
        };
        let settings = TorSettings {
            alpha: resolved.alpha,
            beta: resolved.beta,
            overlap: resolved.overlap,
            rho_reasoning: resolved.rho_reasoning,
            rho_perception: resolved.rho_perception,
            signal: resolved.perception_signal,
            scope: resolved.tor_scope,
            ties: Ties::new(args.tor_ties, seed),
            shaping: (resolved.token_weights == TokenWeighting::Vppo).then_some(shaping),
        };
        Self::new(batch, &settings)
    }

    /// The sets and weights of a batch.
    #[must_use]
    pub fn new(batch: &Batch, settings: &TorSettings) -> Self {
        let sensitivities = sensitivities(batch, settings.signal);
        let spans: Vec<Range<usize>> = batch
            .responses
            .iter()
            .map(|response| response.tokens.clone())
            .collect();
        Self::from_scores(&batch.entropies, &sensitivities, &spans, settings)
    }

    /// The same from the two scores [N]; `spans` are the responses' tokens in them.
    #[must_use]
    pub fn from_scores(
        entropies: &[f32],
        sensitivities: &[f32],
        spans: &[Range<usize>],
        settings: &TorSettings,
    ) -> Self {
        let (is_reasoning, is_perception) = rayon::join(
            || {
                top_tokens(
                    entropies,
                    spans,
                    settings.rho_reasoning,
                    settings.scope,
                    settings.ties,
                )
            },
            || {
                top_tokens(
                    sensitivities,
                    spans,
                    settings.rho_perception,
                    settings.scope,
                    settings.ties.other(),
                )
            },
        );
        let weights = is_reasoning
            .iter()
            .zip(&is_perception)
            .map(|(&reasoning, &perception)| match (reasoning, perception) {
                (true, true) => narrow(settings.overlap),
                (true, false) => narrow(settings.alpha),
                (false, true) => narrow(settings.beta),
                (false, false) => 0.0,
            })
            .collect();
        let advantage_factors = settings
            .shaping
            .map(|shaping| shaping.factors(sensitivities, spans))
            .unwrap_or_default();
        let shares = Some(Shares::new(
            entropies,
            sensitivities,
            &is_reasoning,
            &is_perception,
        ));
        Self {
            weights,
            is_reasoning,
            is_perception,
            advantage_factors,
            shares,
        }
    }

    /// Weight 1 for each of `num_tokens` tokens: the plain algorithm.
    #[must_use]
    pub fn ones(num_tokens: usize) -> Self {
        Self {
            weights: vec![1.0; num_tokens],
            is_reasoning: vec![false; num_tokens],
            is_perception: vec![false; num_tokens],
            advantage_factors: Vec::new(),
            shares: None,
        }
    }
}

impl Shares {
    fn new(
        entropies: &[f32],
        sensitivities: &[f32],
        is_reasoning: &[bool],
        is_perception: &[bool],
    ) -> Self {
        let count = is_reasoning.len().max(1) as f64;
        let share = |member: &dyn Fn(usize) -> bool| {
            (0..is_reasoning.len()).filter(|&i| member(i)).count() as f64 / count
        };
        Self {
            reasoning: share(&|i| is_reasoning[i]),
            perception: share(&|i| is_perception[i]),
            overlap: share(&|i| is_reasoning[i] && is_perception[i]),
            entropy_threshold: lowest_member(entropies, is_reasoning),
            sensitivity_threshold: lowest_member(sensitivities, is_perception),
            rank_correlation: rank_correlation(entropies, sensitivities),
        }
    }
}

/// How much each response token depends on the image (equation 8 and its proxies), [N].
#[must_use]
pub fn sensitivities(batch: &Batch, signal: PerceptionSignal) -> Vec<f32> {
    let logprobs = batch.rollout_logprobs.par_iter().zip(&batch.blank_logprobs);
    match signal {
        PerceptionSignal::LogpDiff => logprobs
            .map(|(image, blank)| (image - blank).abs())
            .collect(),
        PerceptionSignal::ProbDiff => logprobs
            .map(|(image, blank)| (image.exp() - blank.exp()).abs())
            .collect(),
        PerceptionSignal::Signed => logprobs.map(|(image, blank)| image - blank).collect(),
        PerceptionSignal::K3 => logprobs
            .map(|(image, blank)| crate::loss::k3(blank - image))
            .collect(),
        PerceptionSignal::EntropyDiff => {
            let entropies = batch.entropies.par_iter().zip(&batch.blank_entropies);
            entropies
                .map(|(image, blank)| (image - blank).abs())
                .collect()
        }
    }
}

/// Membership [N] of the tokens with the highest scores, over the batch or in each response.
fn top_tokens(
    scores: &[f32],
    spans: &[Range<usize>],
    rho: f64,
    scope: TorScope,
    ties: Ties,
) -> Vec<bool> {
    match scope {
        TorScope::Batch => top_share(scores, rho, ties, 0),
        TorScope::Response => {
            let mut members = vec![false; scores.len()];
            for span in spans {
                let top = top_share(&scores[span.clone()], rho, ties, span.start);
                members[span.clone()].copy_from_slice(&top);
            }
            members
        }
    }
}

/// The lowest score among the members, 0 without any.
fn lowest_member(scores: &[f32], is_member: &[bool]) -> f64 {
    let members = scores.iter().zip(is_member).filter(|(_, member)| **member);
    members
        .map(|(&score, _)| f64::from(score))
        .reduce(f64::min)
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::selection::share_of;
    use super::*;

    fn settings(rho: f64, scope: TorScope, ties: Ties) -> TorSettings {
        let signal = PerceptionSignal::LogpDiff;
        TorSettings {
            alpha: 1.0,
            beta: 0.5,
            overlap: 1.0,
            rho_reasoning: rho,
            rho_perception: rho,
            signal,
            scope,
            ties,
            shaping: None,
        }
    }

    fn count(members: &[bool]) -> usize {
        members.iter().filter(|member| **member).count()
    }

    #[test]
    fn ties_fall_independently_in_the_two_sets() {
        let zeros = vec![0.0; 10_000];
        let settings = settings(0.3, TorScope::Batch, Ties::Shuffle { seed: 5 });
        let spans = [0..5_000, 5_000..10_000];
        let shares = TokenWeights::from_scores(&zeros, &zeros, &spans, &settings)
            .shares
            .unwrap();
        assert_eq!((shares.reasoning, shares.perception), (0.3, 0.3));
        assert!((shares.overlap - 0.09).abs() < 0.02, "{shares:?}");
    }

    #[test]
    fn the_three_weights_go_to_their_sets() {
        // By entropy 3 and 2, by sensitivity 3 and 0.
        let (entropies, sensitivities) = ([0.0, 1.0, 2.0, 3.0], [2.0, 1.0, 0.0, 3.0]);
        let settings = TorSettings {
            alpha: 2.0,
            beta: 3.0,
            overlap: 5.0,
            shaping: Some(Shaping {
                min: 0.5,
                max: Some(1.5),
            }),
            ..settings(0.5, TorScope::Batch, Ties::LowerIndex)
        };
        let tor = TokenWeights::from_scores(&entropies, &sensitivities, &[0..3, 3..4], &settings);
        assert_eq!(tor.weights, [3.0, 0.0, 2.0, 5.0]);
        assert_eq!(tor.advantage_factors, [0.5, 1.5]);
    }

    proptest! {
        #[test]
        fn weights_sum_to_alpha_and_beta_times_the_sets(
            scores in prop::collection::vec((0.0_f32..2.0, 0.0_f32..2.0), 2..200),
            rho in 0.01_f64..0.9,
            cut in 1_usize..199,
        ) {
            let (entropies, sensitivities): (Vec<f32>, Vec<f32>) = scores.into_iter().unzip();
            let cut = cut.min(entropies.len() - 1);
            let spans = [0..cut, cut..entropies.len()];
            for scope in [TorScope::Batch, TorScope::Response] {
                let settings = settings(rho, scope, Ties::LowerIndex);
                let tor = TokenWeights::from_scores(&entropies, &sensitivities, &spans, &settings);
                let overlap = tor.is_reasoning.iter().zip(&tor.is_perception).filter(|(a, b)| **a && **b).count();
                let expected = count(&tor.is_reasoning) as f64 + 0.5 * (count(&tor.is_perception) - overlap) as f64;
                let sum: f64 = tor.weights.iter().map(|&w| f64::from(w)).sum();
                prop_assert!((sum - expected).abs() < 1e-9);
                if scope == TorScope::Response {
                    prop_assert_eq!(count(&tor.is_reasoning[..cut]), share_of(rho, cut));
                }
            }
        }
    }
}
