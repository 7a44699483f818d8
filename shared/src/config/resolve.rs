//! The defaults that depend on `--algo` and on other choices: this file is the only place that knows them.
//!
//! | algo | advantage | surrogate | clip low, high | aggregation | group filter | KL |
//! |---|---|---|---|---|---|---|
//! | dapo (eq. 4) | grpo | clip | 0.2, 0.28 | token-mean | accuracy | 0 |
//! | grpo (eq. 2) | grpo | clip | 0.2, 0.2 | sequence-mean | off | 0.01, k3, loss |
//! | dr-grpo | dr-grpo | clip | 0.2, 0.2 | constant | off | 0 |
//! | rloo | rloo | clip | 0.2, 0.2 | sequence-mean | off | 0.01, k1, reward |
//! | reinforce-plus-plus | the same | clip | 0.2, 0.2 | token-mean | off | 0.01, k1, reward |
//! | reinforce-plus-plus-baseline | the same | clip | 0.2, 0.2 | token-mean | off | 0.01, k2, loss |
//! | gspo | grpo | gspo | 3e-4, 4e-4 | sequence-mean | off | 0 |
//! | cispo | grpo | cispo | none, 5 | token-mean | accuracy | 0 |
//! | sapo | grpo | sapo | - | sequence-mean | off | 0 |
//! | gmpo | grpo | gmpo | 0.4, 0.4 (of the log) | sequence-mean | off | 0 |
//!
//! The clip's defaults go with the surrogate where that is given beside the algo. With advantage `remax` no group is filtered by default:
//! one whose responses are all alike may still differ from its baseline.

use serde::Serialize;

use super::{
    Advantage, Aggregation, Algo, GroupFilter, ImportanceCorrection, KlEstimator, KlIn,
    PerceptionSignal, RunConfig, Surrogate, TokenArgs, TokenWeighting, TorScope,
};

/// The keys of [`super::LearnerArgs`] that may be left open, with their values.
#[derive(Serialize, Debug, Clone, Copy, PartialEq)]
pub struct Resolved {
    /// How rewards become advantages.
    pub advantage: Advantage,
    /// Size of the subsets of pass@k.
    pub pass_k: usize,
    /// What is maximised.
    pub surrogate: Surrogate,
    /// The importance ratio is kept above 1 - clip_low; 1 is no lower bound.
    pub clip_low: f64,
    /// And below 1 + clip_high.
    pub clip_high: f64,
    /// tau of sapo where the advantage is positive.
    pub sapo_tau_positive: f64,
    /// And elsewhere.
    pub sapo_tau_negative: f64,
    /// How token losses become one number.
    pub aggregation: Aggregation,
    /// The length that `constant` divides by.
    pub aggregation_length: usize,
    /// Which groups are replaced.
    pub group_filter: GroupFilter,
    /// Weight of the KL term; 0 when the estimator is off.
    pub kl_coef: f64,
    /// Its estimator.
    pub kl_estimator: KlEstimator,
    /// Where it stands.
    pub kl_in: KlIn,
    /// Responses over which the coefficient is adapted.
    pub kl_horizon: usize,
    /// Largest factor of truncated importance sampling.
    pub importance_cap: f64,
    /// Lowest ratio that a mask keeps.
    pub importance_low: f64,
    /// Highest ratio that a mask keeps.
    pub importance_high: f64,
    /// How tokens are weighed.
    pub token_weights: TokenWeighting,
    /// Weight of the reasoning set without the perception set.
    pub alpha: f64,
    /// Weight of the perception set without the reasoning set.
    pub beta: f64,
    /// Weight of tokens in both.
    pub overlap: f64,
    /// Share of the reasoning set, rho of eq. 7.
    pub rho_reasoning: f64,
    /// Share of the perception set, rho of eq. 9.
    pub rho_perception: f64,
    /// What marks a perception token.
    pub perception_signal: PerceptionSignal,
    /// Over which tokens the shares are taken.
    pub tor_scope: TorScope,
    /// Lowest factor of VPPO's advantages.
    pub vppo_min: f64,
    /// Prompts per optimizer step.
    pub mini_batch_prompts: usize,
}

/// What an algo brings.
struct Preset {
    advantage: Advantage,
    surrogate: Surrogate,
    clip_high: f64,
    aggregation: Aggregation,
    group_filter: GroupFilter,
    kl: (f64, KlEstimator, KlIn),
}

impl Preset {
    fn new(algo: Algo) -> Self {
        let grpo = Self {
            advantage: Advantage::Grpo,
            surrogate: Surrogate::Clip,
            clip_high: 0.2,
            aggregation: Aggregation::SequenceMean,
            group_filter: GroupFilter::Off,
            kl: (0.0, KlEstimator::K3, KlIn::Loss),
        };
        let dapo = Self {
            clip_high: 0.28,
            aggregation: Aggregation::TokenMean,
            group_filter: GroupFilter::Accuracy,
            ..grpo
        };
        match algo {
            Algo::Dapo => dapo,
            Algo::Grpo => Self {
                kl: (0.01, KlEstimator::K3, KlIn::Loss),
                ..grpo
            },
            Algo::DrGrpo => Self {
                advantage: Advantage::DrGrpo,
                aggregation: Aggregation::Constant,
                ..grpo
            },
            Algo::Rloo => Self {
                advantage: Advantage::Rloo,
                kl: (0.01, KlEstimator::K1, KlIn::Reward),
                ..grpo
            },
            Algo::ReinforcePlusPlus => Self {
                advantage: Advantage::ReinforcePlusPlus,
                aggregation: Aggregation::TokenMean,
                kl: (0.01, KlEstimator::K1, KlIn::Reward),
                ..grpo
            },
            Algo::ReinforcePlusPlusBaseline => Self {
                advantage: Advantage::ReinforcePlusPlusBaseline,
                aggregation: Aggregation::TokenMean,
                kl: (0.01, KlEstimator::K2, KlIn::Loss),
                ..grpo
            },
            Algo::Gspo => Self {
                surrogate: Surrogate::Gspo,
                ..grpo
            },
            Algo::Cispo => Self {
                surrogate: Surrogate::Cispo,
                ..dapo
            },
            Algo::Sapo => Self {
                surrogate: Surrogate::Sapo,
                ..grpo
            },
            Algo::Gmpo => Self {
                surrogate: Surrogate::Gmpo,
                ..grpo
            },
        }
    }
}

impl RunConfig {
    /// Refuses choices of `[learner]` that contradict each other.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self) -> super::Result<()> {
        super::conflicts::check(self)
    }

    /// Refuses groups of one where nothing can be learnt from them; once the learner's configuration is known.
    ///
    /// # Errors
    /// What needs larger groups.
    pub fn check_group_size(&self) -> super::Result<()> {
        super::conflicts::check_group_size(self)
    }

    /// Fills what was left open in `[learner]`.
    #[must_use]
    pub fn resolved(&self) -> Resolved {
        let args = &self.learner.objective;
        let preset = Preset::new(args.algo);
        let advantage = match args.advantage.unwrap_or(preset.advantage) {
            Advantage::Grpo if args.advantage_std == Some(false) => Advantage::DrGrpo,
            given => given,
        };
        let surrogate = args.surrogate.unwrap_or(preset.surrogate);
        let (clip_low, clip_high) = match surrogate {
            Surrogate::Clip | Surrogate::Sapo => (0.2, preset.clip_high),
            Surrogate::Gspo | Surrogate::GspoToken => (3e-4, 4e-4),
            Surrogate::Cispo => (1.0, 5.0),
            Surrogate::Gmpo => (0.4, 0.4),
        };
        let (kl_coef, kl_estimator, kl_in) = preset.kl;
        let kl_in = args.kl_in.unwrap_or(kl_in);
        let kl_estimator = args.kl_estimator.unwrap_or(match kl_in {
            KlIn::Reward => KlEstimator::K1,
            // The preset's k1 is that of the reward.
            KlIn::Loss if kl_estimator == KlEstimator::K1 => KlEstimator::K3,
            KlIn::Loss => kl_estimator,
        });
        let (importance_low, importance_high) = match args.importance_correction {
            ImportanceCorrection::SequenceMask => (0.9, 1.1),
            _ => (0.5, 5.0),
        };
        let tokens = &self.learner.tokens;
        let weights = tokens.weighting();
        let (alpha, beta, overlap) = tokens.weights_of_sets(weights);
        let rho = tokens.rho.unwrap_or(match weights {
            TokenWeighting::Entropy => 0.2,
            TokenWeighting::Vppo => 0.4,
            _ => 0.3,
        });
        let is_vppo = weights == TokenWeighting::Vppo;
        Resolved {
            advantage,
            pass_k: args.pass_k.unwrap_or_else(|| {
                let group_size = self.rollout.group_size;
                4.min(group_size.saturating_sub(1)).max(1)
            }),
            surrogate,
            clip_low: args.clip_low.unwrap_or(clip_low),
            clip_high: args.clip_high.unwrap_or(clip_high),
            sapo_tau_positive: args.sapo_tau_positive.unwrap_or(1.0),
            sapo_tau_negative: args.sapo_tau_negative.unwrap_or(1.05),
            aggregation: args.aggregation.unwrap_or(preset.aggregation),
            aggregation_length: args
                .aggregation_length
                .unwrap_or(self.rollout.max_response_tokens),
            group_filter: args.group_filter.unwrap_or(match advantage {
                Advantage::Remax => GroupFilter::Off,
                _ => preset.group_filter,
            }),
            kl_coef: match kl_estimator {
                KlEstimator::Off => 0.0,
                _ => args.kl_coef.unwrap_or(kl_coef),
            },
            kl_estimator,
            kl_in,
            kl_horizon: args.kl_horizon.unwrap_or(10_000),
            importance_cap: args.importance_cap.unwrap_or(2.0),
            importance_low: args.importance_low.unwrap_or(importance_low),
            importance_high: args.importance_high.unwrap_or(importance_high),
            token_weights: weights,
            alpha,
            beta,
            overlap,
            rho_reasoning: tokens.rho_reasoning.unwrap_or(rho),
            rho_perception: tokens.rho_perception.unwrap_or(rho),
            perception_signal: tokens.perception_signal.unwrap_or(match is_vppo {
                true => PerceptionSignal::K3,
                false => PerceptionSignal::LogpDiff,
            }),
            tor_scope: tokens.tor_scope.unwrap_or(match is_vppo {
                true => TorScope::Response,
                false => TorScope::Batch,
            }),
            vppo_min: tokens.vppo_min.unwrap_or(0.9),
            mini_batch_prompts: self
                .learner
                .mini_batch_prompts
                .unwrap_or(self.learner.batch_prompts),
        }
    }
}

impl Resolved {
    /// Whether the rollouts have to make a greedy response to each prompt, whose reward is the group's baseline.
    #[must_use]
    pub fn has_greedy_baseline(&self) -> bool {
        self.advantage == Advantage::Remax
    }
}

impl TokenArgs {
    /// The weighting in effect: `no_tor` is another word for none.
    #[must_use]
    pub fn weighting(&self) -> TokenWeighting {
        match self.no_tor {
            true => TokenWeighting::None,
            false => self.token_weights.unwrap_or(TokenWeighting::Tor),
        }
    }

    /// Weights of the reasoning set alone, the perception set alone, and of what is in both.
    fn weights_of_sets(&self, weighting: TokenWeighting) -> (f64, f64, f64) {
        match weighting {
            TokenWeighting::Tor => {
                let alpha = self.alpha.unwrap_or(1.0);
                (alpha, self.beta.unwrap_or(0.5), alpha)
            }
            TokenWeighting::ReasoningOnly | TokenWeighting::Entropy => (1.0, 0.0, 1.0),
            TokenWeighting::PerceptionOnly | TokenWeighting::Vppo => (0.0, 1.0, 1.0),
            TokenWeighting::None => (1.0, 1.0, 1.0),
        }
    }
}
