//! The objective's keys: presets, defaults that follow other choices, contradictions.

use super::super::*;
use super::learner;

#[test]
fn presets_bring_their_choices() {
    let resolved = |line: &str| learner(line).unwrap().resolved();
    let dr_grpo = resolved("learner --algo dr-grpo");
    assert_eq!(
        (
            dr_grpo.advantage,
            dr_grpo.aggregation,
            dr_grpo.aggregation_length
        ),
        (Advantage::DrGrpo, Aggregation::Constant, 2048)
    );
    let gspo = resolved("learner --algo gspo --clip-high 5e-4");
    assert_eq!(
        (gspo.surrogate, gspo.clip_low, gspo.clip_high),
        (Surrogate::Gspo, 3e-4, 5e-4)
    );
    // The clip goes with the surrogate, the rest with the algo.
    let mixed = resolved("learner --surrogate gmpo");
    assert_eq!(
        (mixed.clip_high, mixed.aggregation, mixed.group_filter),
        (0.4, Aggregation::TokenMean, GroupFilter::Accuracy)
    );
    let cispo = resolved("learner --algo cispo");
    assert_eq!((cispo.clip_low, cispo.clip_high), (1.0, 5.0));
    let rloo = resolved("learner --algo rloo");
    assert_eq!(
        (rloo.kl_coef, rloo.kl_estimator, rloo.kl_in),
        (0.01, KlEstimator::K1, KlIn::Reward)
    );
    assert_eq!(
        resolved("learner --algo rloo --kl-in loss").kl_estimator,
        KlEstimator::K3
    );
    assert_eq!(
        resolved("learner --algo reinforce-plus-plus-baseline").kl_estimator,
        KlEstimator::K2
    );
    assert_eq!(
        resolved("learner --advantage-std=false").advantage,
        Advantage::DrGrpo
    );
}

#[test]
fn remax_asks_for_a_greedy_response_and_keeps_every_group() {
    let resolved = |line: &str| learner(line).unwrap().resolved();
    let remax = resolved("learner --advantage remax");
    assert!(remax.has_greedy_baseline());
    assert_eq!(
        (remax.advantage, remax.group_filter),
        (Advantage::Remax, GroupFilter::Off)
    );
    assert_eq!(
        resolved("learner --advantage remax --group-filter overall").group_filter,
        GroupFilter::Overall
    );
    assert!(!resolved("learner").has_greedy_baseline());
}

#[test]
fn a_group_of_one_is_for_advantages_that_need_no_other_response() {
    let said = |line: &str, group_size: usize| {
        let mut config = learner(line).unwrap();
        config.rollout.group_size = group_size;
        let checked = config.check_group_size();
        checked.map_err(|error| error.to_string()).err()
    };
    for line in [
        "--advantage remax",
        "--algo reinforce-plus-plus",
        "--advantage reinforce-plus-plus --group-filter off",
    ] {
        assert_eq!(said(&format!("learner {line}"), 1), None, "{line}");
    }
    for (line, advantage) in [
        ("", "grpo"),
        ("--advantage dr-grpo", "dr-grpo"),
        ("--algo rloo", "rloo"),
        (
            "--algo reinforce-plus-plus-baseline",
            "reinforce-plus-plus-baseline",
        ),
        ("--advantage pass-at-k", "pass-at-k"),
    ] {
        let line = format!("learner {line}");
        let message = format!(
            "group_size = 1 in [rollout] leaves no other response to compare with: advantage = \"{advantage}\" in [learner] needs at \
             least 2; \"remax\" and \"reinforce-plus-plus\" do with 1"
        );
        assert_eq!(said(&line, 1), Some(message));
        assert_eq!(said(&line, 2), None);
    }
    assert_eq!(
        said("learner --advantage reinforce-plus-plus", 1).unwrap(),
        "group_filter = \"accuracy\" in [learner] drops every group of one (group_size in [rollout]): give \"off\""
    );
}

#[test]
fn token_weightings_bring_their_shares() {
    let resolved = |line: &str| learner(line).unwrap().resolved();
    let sets = |line: &str| {
        let resolved = resolved(line);
        (resolved.alpha, resolved.beta, resolved.overlap)
    };
    assert_eq!(sets("learner --alpha 2"), (2.0, 0.5, 2.0));
    assert_eq!(
        sets("learner --token-weights reasoning-only"),
        (1.0, 0.0, 1.0)
    );
    assert_eq!(
        sets("learner --token-weights perception-only"),
        (0.0, 1.0, 1.0)
    );
    assert_eq!(
        resolved("learner --token-weights entropy").rho_reasoning,
        0.2
    );
    let vppo = resolved("learner --token-weights vppo");
    assert_eq!(
        (
            vppo.rho_perception,
            vppo.perception_signal,
            vppo.tor_scope,
            vppo.vppo_min
        ),
        (0.4, PerceptionSignal::K3, TorScope::Response, 0.9)
    );
    // The plain algorithm from a file that sets weights.
    let plain = resolved("learner --no-tor --beta 0.5 --rho 0.3");
    assert_eq!(plain.token_weights, TokenWeighting::None);
}

#[test]
fn contradictions_are_refused_in_one_line() {
    for (arguments, message) in [
        (
            "--algo gspo --dual-clip 3",
            "dual_clip in [learner] needs surrogate = \"clip\" and has no effect with \"gspo\": leave it out",
        ),
        (
            "--surrogate sapo --clip-low 0.1",
            "clip_low in [learner] needs a surrogate that clips",
        ),
        (
            "--sapo-tau-negative 2",
            "sapo_tau_negative in [learner] needs surrogate = \"sapo\"",
        ),
        (
            "--algo rloo --advantage-std",
            "advantage_std in [learner] needs advantage = \"grpo\"",
        ),
        (
            "--pass-k 2",
            "pass_k in [learner] needs advantage = \"pass-at-k\"",
        ),
        (
            "--advantage pass-at-k --pass-k 9",
            "pass_k (9) in [learner] is not below group_size (8) in [rollout]",
        ),
        (
            "--kl-coef 0.1 --kl-estimator off",
            "kl_coef and kl_estimator = \"off\" in [learner] contradict each other",
        ),
        (
            "--token-weights vppo --vppo-min 1.5",
            "vppo_min (1.5) in [learner] above 1 needs vppo_max",
        ),
        (
            "--token-weights entropy --perception-signal k3",
            "perception_signal in [learner] needs",
        ),
        (
            "--aggregation-length 9",
            "aggregation_length in [learner] needs aggregation = \"constant\"",
        ),
        (
            "--algo dr-grpo --tor-normaliser weights",
            "tor_normaliser in [learner] needs aggregation",
        ),
        (
            "--kl-in reward",
            "kl_in in [learner] has no effect without a KL term",
        ),
        (
            "--kl-target 0.1 --kl-estimator off --kl-coef 1",
            "kl_target in [learner] has no effect",
        ),
        (
            "--algo grpo --kl-horizon 9",
            "kl_horizon in [learner] has no effect without kl_target",
        ),
        (
            "--algo rloo --kl-weighted",
            "kl_weighted in [learner] needs kl_in = \"loss\"",
        ),
        (
            "--algo rloo --kl-estimator full",
            "kl_estimator = \"full\" in [learner] needs kl_in = \"loss\"",
        ),
        (
            "--importance-correction icepop --importance-cap 2",
            "importance_cap in [learner] needs",
        ),
        (
            "--importance-low 0.5",
            "importance_low in [learner] needs importance_correction",
        ),
        (
            "--importance-correction icepop --importance-low 5",
            "importance_low (5) is not below importance_high (5) in [learner]",
        ),
        (
            "--no-tor --token-weights vppo",
            "no_tor and token_weights = \"vppo\" in [learner] contradict",
        ),
        (
            "--token-weights entropy --beta 0.5",
            "beta in [learner] needs token_weights = \"tor\"",
        ),
        (
            "--token-weights vppo --rho-reasoning 0.5",
            "rho_reasoning in [learner] needs",
        ),
        (
            "--vppo-max 2",
            "vppo_max in [learner] needs token_weights = \"vppo\"",
        ),
        (
            "--token-weights vppo --vppo-max 0.5",
            "vppo_max (0.5) is below vppo_min (0.9) in [learner]",
        ),
    ] {
        let error = learner(&format!("learner {arguments}"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(message) && !error.contains('\n'),
            "{arguments}: {error}"
        );
    }
}

/// A run folder of an earlier release holds every key that then had a plain default.
#[test]
fn keys_that_were_always_written_still_load() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[learner]\nadvantage_std = true\nkl_estimator = \"k3\"\nimportance_correction = \"auto\"\n\
        importance_cap = 2.0\nalpha = 1.0\nbeta = 0.5\nrho = 0.3\nno_tor = true\nperception_signal = \"logp-diff\"\n\
        tor_scope = \"batch\"\ntor_ties = \"shuffle\"\ntor_normaliser = \"response-tokens\"\n";
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let line = format!("learner --run-dir {}", folder.path().display());
    let resolved = learner(&line).unwrap().resolved();
    assert_eq!(
        (resolved.advantage, resolved.rho_reasoning),
        (Advantage::Grpo, 0.3)
    );
    assert_eq!(resolved.token_weights, TokenWeighting::None);
}
