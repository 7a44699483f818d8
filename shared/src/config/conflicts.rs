//! Choices of `[learner]` that contradict each other: refused at the start, where one of them would be ignored silently.
//!
//! Only what was given is refused, never a default. Token weights are the exception: `no_tor` beside their keys is fine, so
//! that the plain algorithm can be run from the same file.

use clap::ValueEnum;

use super::error::{Error, Result};
use super::{
    Advantage, Aggregation, GroupFilter, ImportanceCorrection, KlEstimator, KlIn, LearnerArgs,
    ObjectiveArgs, Resolved, RunConfig, Surrogate, TokenArgs, TokenWeighting, TorNormaliser,
};

/// Refuses the first contradiction.
pub(super) fn check(config: &RunConfig) -> Result<()> {
    let resolved = config.resolved();
    let args = &config.learner.objective;
    advantage(config, args, &resolved)?;
    surrogate(args, &resolved)?;
    aggregation(args, &config.learner.tokens, &resolved)?;
    kl(args, &resolved)?;
    importance(args, &resolved)?;
    tokens(&config.learner.tokens, &resolved)?;
    lora(&config.learner)
}

fn advantage(config: &RunConfig, args: &ObjectiveArgs, resolved: &Resolved) -> Result<()> {
    let chosen = args.advantage.unwrap_or(resolved.advantage);
    let divides = matches!(chosen, Advantage::Grpo);
    let is_said_twice = chosen == Advantage::DrGrpo && args.advantage_std == Some(false);
    needs(
        args.advantage_std.is_some() && !is_said_twice,
        "advantage_std",
        divides,
        "advantage = \"grpo\"",
        chosen,
    )?;
    let is_pass_k = chosen == Advantage::PassAtK;
    needs(
        args.pass_k.is_some(),
        "pass_k",
        is_pass_k,
        "advantage = \"pass-at-k\"",
        chosen,
    )?;
    let group_size = config.rollout.group_size;
    if is_pass_k && group_size < 2 {
        return refuse(
            "advantage = \"pass-at-k\" in [learner] needs group_size of at least 2 in [rollout]"
                .to_owned(),
        );
    }
    if is_pass_k && resolved.pass_k >= group_size {
        return refuse(format!(
            "pass_k ({}) in [learner] is not below group_size ({group_size}) in [rollout]: the best of all responses is the same \
             whichever is looked at, and every advantage would be 0",
            resolved.pass_k
        ));
    }
    Ok(())
}

/// Refuses groups of one where nothing can be learnt from them. What `[learner]` says must be known: a rollout that is there before
/// its learner asks later.
pub(super) fn check_group_size(config: &RunConfig) -> Result<()> {
    let Resolved {
        advantage,
        group_filter,
        ..
    } = config.resolved();
    if config.rollout.group_size > 1 {
        return Ok(());
    }
    if !matches!(advantage, Advantage::Remax | Advantage::ReinforcePlusPlus) {
        return refuse(format!(
            "group_size = 1 in [rollout] leaves no other response to compare with: advantage = {:?} in [learner] needs at least 2; \
             \"remax\" and \"reinforce-plus-plus\" do with 1",
            name(advantage)
        ));
    }
    if group_filter != GroupFilter::Off {
        return refuse(format!(
            "group_filter = {:?} in [learner] drops every group of one (group_size in [rollout]): give \"off\"",
            name(group_filter)
        ));
    }
    Ok(())
}

fn surrogate(args: &ObjectiveArgs, resolved: &Resolved) -> Result<()> {
    let chosen = resolved.surrogate;
    needs(
        args.dual_clip.is_some(),
        "dual_clip",
        chosen == Surrogate::Clip,
        "surrogate = \"clip\"",
        chosen,
    )?;
    for (given, key) in [
        (args.clip_low.is_some(), "clip_low"),
        (args.clip_high.is_some(), "clip_high"),
    ] {
        needs(
            given,
            key,
            chosen != Surrogate::Sapo,
            "a surrogate that clips",
            chosen,
        )?;
    }
    for (given, key) in [
        (args.sapo_tau_positive.is_some(), "sapo_tau_positive"),
        (args.sapo_tau_negative.is_some(), "sapo_tau_negative"),
    ] {
        needs(
            given,
            key,
            chosen == Surrogate::Sapo,
            "surrogate = \"sapo\"",
            chosen,
        )?;
    }
    Ok(())
}

fn aggregation(args: &ObjectiveArgs, tokens: &TokenArgs, resolved: &Resolved) -> Result<()> {
    let chosen = resolved.aggregation;
    let is_constant = chosen == Aggregation::Constant;
    needs(
        args.aggregation_length.is_some(),
        "aggregation_length",
        is_constant,
        "aggregation = \"constant\"",
        chosen,
    )?;
    needs(
        tokens.tor_normaliser != TorNormaliser::ResponseTokens,
        "tor_normaliser",
        !is_constant,
        "aggregation = \"token-mean\" or \"sequence-mean\"",
        chosen,
    )
}

fn kl(args: &ObjectiveArgs, resolved: &Resolved) -> Result<()> {
    let has_kl = resolved.kl_coef > 0.0;
    for (given, key) in [
        (args.kl_in.is_some(), "kl_in"),
        (args.kl_target.is_some(), "kl_target"),
        (args.kl_weighted, "kl_weighted"),
    ] {
        if given && !has_kl {
            return refuse(format!(
                "{key} in [learner] has no effect without a KL term: give kl_coef above 0, or leave it out"
            ));
        }
    }
    if args.kl_coef.is_some_and(|given| given > 0.0) && args.kl_estimator == Some(KlEstimator::Off)
    {
        return refuse(
            "kl_coef and kl_estimator = \"off\" in [learner] contradict each other: leave one out"
                .to_owned(),
        );
    }
    if args.kl_horizon.is_some() && args.kl_target.is_none() {
        return refuse(
            "kl_horizon in [learner] has no effect without kl_target: leave it out".to_owned(),
        );
    }
    if !has_kl || resolved.kl_in == KlIn::Loss {
        return Ok(());
    }
    needs(
        args.kl_weighted,
        "kl_weighted",
        false,
        "kl_in = \"loss\"",
        resolved.kl_in,
    )?;
    if resolved.kl_estimator == KlEstimator::Full {
        return refuse(
            "kl_estimator = \"full\" in [learner] needs kl_in = \"loss\": the reward takes an estimate from the sampled tokens"
                .to_owned(),
        );
    }
    Ok(())
}

fn importance(args: &ObjectiveArgs, resolved: &Resolved) -> Result<()> {
    use ImportanceCorrection::{Icepop, SequenceMask};
    let chosen = args.importance_correction;
    let is_band = matches!(chosen, Icepop | SequenceMask);
    needs(
        args.importance_cap.is_some(),
        "importance_cap",
        !is_band,
        "importance_correction = \"token\" or \"sequence\"",
        chosen,
    )?;
    for (given, key) in [
        (args.importance_low.is_some(), "importance_low"),
        (args.importance_high.is_some(), "importance_high"),
    ] {
        needs(
            given,
            key,
            is_band,
            "importance_correction = \"icepop\" or \"sequence-mask\"",
            chosen,
        )?;
    }
    let (low, high) = (resolved.importance_low, resolved.importance_high);
    if low >= high {
        return refuse(format!(
            "importance_low ({low}) is not below importance_high ({high}) in [learner]"
        ));
    }
    Ok(())
}

fn tokens(args: &TokenArgs, resolved: &Resolved) -> Result<()> {
    use TokenWeighting::{Entropy, None, PerceptionOnly, ReasoningOnly, Tor, Vppo};
    if let (true, Some(given)) = (args.no_tor, args.token_weights)
        && given != None
    {
        return refuse(format!(
            "no_tor and token_weights = {:?} in [learner] contradict each other: leave one out",
            name(given)
        ));
    }
    let chosen = resolved.token_weights;
    if chosen == None {
        return Ok(());
    }
    let reasons = matches!(chosen, Tor | ReasoningOnly | Entropy);
    let perceives = matches!(chosen, Tor | PerceptionOnly | Vppo);
    let (tor, vppo) = ("token_weights = \"tor\"", "token_weights = \"vppo\"");
    let sets = "a token_weights that looks at that set";
    for (given, key, fits, what) in [
        (args.alpha.is_some(), "alpha", chosen == Tor, tor),
        (args.beta.is_some(), "beta", chosen == Tor, tor),
        (args.rho_reasoning.is_some(), "rho_reasoning", reasons, sets),
        (
            args.rho_perception.is_some(),
            "rho_perception",
            perceives,
            sets,
        ),
        (
            args.perception_signal.is_some(),
            "perception_signal",
            perceives,
            sets,
        ),
        (args.vppo_min.is_some(), "vppo_min", chosen == Vppo, vppo),
        (args.vppo_max.is_some(), "vppo_max", chosen == Vppo, vppo),
    ] {
        needs(given, key, fits, what, chosen)?;
    }
    match args.vppo_max {
        Option::None if chosen == Vppo && resolved.vppo_min > 1.0 => refuse(format!(
            "vppo_min ({}) in [learner] above 1 needs vppo_max: the factors' mean is 1 without it",
            resolved.vppo_min
        )),
        Some(max) if max < resolved.vppo_min => refuse(format!(
            "vppo_max ({max}) is below vppo_min ({}) in [learner]",
            resolved.vppo_min
        )),
        _ => Ok(()),
    }
}

fn lora(args: &LearnerArgs) -> Result<()> {
    let has_targets = args
        .lora_targets
        .as_ref()
        .is_some_and(|names| !names.is_empty());
    for (given, key) in [
        (args.lora_alpha.is_some(), "lora_alpha"),
        (has_targets, "lora_targets"),
    ] {
        if given && args.lora_rank == 0 {
            return refuse(format!(
                "{key} in [learner] has no effect without LoRA: give lora_rank above 0, or leave it out"
            ));
        }
    }
    Ok(())
}

/// Refuses a key that was given where what was chosen ignores it.
fn needs<C: ValueEnum>(given: bool, key: &str, fits: bool, what: &str, chosen: C) -> Result<()> {
    if !given || fits {
        return Ok(());
    }
    refuse(format!(
        "{key} in [learner] needs {what} and has no effect with {:?}: leave it out",
        name(chosen)
    ))
}

/// The value as it is written.
fn name<C: ValueEnum>(choice: C) -> String {
    choice
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

fn refuse(message: String) -> Result<()> {
    Err(Error::Conflict(message))
}
