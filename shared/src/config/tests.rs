//! Both programs' command lines over files in a temporary run folder.

use clap::{Args, CommandFactory, FromArgMatches, Parser};
use proptest::prelude::*;

use super::*;

#[derive(Parser, Debug)]
#[command(name = "rollout")]
struct Rollout {
    #[command(flatten)]
    _run: RunArgs,
    #[command(flatten)]
    _rollout: RolloutArgs,
}

#[derive(Parser, Debug)]
#[command(name = "learner")]
struct Learner {
    #[command(flatten)]
    _run: RunArgs,
    #[command(flatten)]
    _learner: LearnerArgs,
}

fn rollout(line: &str) -> Result<RunConfig> {
    let matches = Rollout::command()
        .try_get_matches_from(line.split_whitespace())
        .map_err(Error::from)?;
    load(&matches, Program::Rollout)
}

fn learner(line: &str) -> Result<RunConfig> {
    let matches = Learner::command()
        .try_get_matches_from(line.split_whitespace())
        .map_err(Error::from)?;
    load(&matches, Program::Learner)
}

fn refused(toml: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    std::fs::write(&file, toml).unwrap();
    let line = format!(
        "learner --run-dir {} --config {}",
        folder.path().display(),
        file.display()
    );
    let message = learner(&line).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message.replace(&file.display().to_string(), "my.toml")
}

#[test]
fn commands_are_sound() {
    Rollout::command().debug_assert();
    Learner::command().debug_assert();
}

#[test]
fn the_readme_command_lines() {
    let config = rollout("rollout --engine trt").unwrap();
    assert_eq!(config.rollout.engine, Engine::Trt);

    let config = learner("learner --algo dapo --beta 0.5 --rho 0.3").unwrap();
    let learner = &config.learner;
    assert_eq!(learner.objective.algo, Algo::Dapo);
    assert_eq!(
        (learner.tokens.beta, learner.tokens.rho),
        (Some(0.5), Some(0.3))
    );
    let resolved = config.resolved();
    assert_eq!(
        (resolved.clip_low, resolved.clip_high, resolved.kl_coef),
        (0.2, 0.28, 0.0)
    );
    assert_eq!(
        (resolved.aggregation, resolved.group_filter),
        (Aggregation::TokenMean, GroupFilter::Accuracy)
    );
    assert_eq!(
        (
            resolved.rho_reasoning,
            resolved.rho_perception,
            resolved.mini_batch_prompts
        ),
        (0.3, 0.3, 32)
    );
}

#[test]
fn grpo_brings_its_own_defaults() {
    let resolved = learner("learner --algo grpo --rho-perception 0.1")
        .unwrap()
        .resolved();
    assert_eq!(
        (resolved.clip_low, resolved.clip_high, resolved.kl_coef),
        (0.2, 0.2, 0.01)
    );
    assert_eq!(
        (resolved.aggregation, resolved.group_filter),
        (Aggregation::SequenceMean, GroupFilter::Off)
    );
    assert_eq!(
        (resolved.rho_reasoning, resolved.rho_perception),
        (0.3, 0.1)
    );
    assert_eq!(
        learner("learner --algo grpo --kl-estimator off")
            .unwrap()
            .resolved()
            .kl_coef,
        0.0
    );
}

#[test]
fn layers_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    std::fs::create_dir(&run_dir).unwrap();
    std::fs::write(
        run_dir.join("config.toml"),
        "[rollout]\nrows = 1\ntop_k = 1\ngroup_size = 4\n[learner]\nlr = 1\n",
    )
    .unwrap();
    let file = folder.path().join("my.toml");
    let text = format!(
        "[run]\nrun_dir = {:?}\n[rollout]\nrows = 2\ntop_k = 2\n[learner]\nno_tor = true\n",
        run_dir
    );
    std::fs::write(&file, text).unwrap();

    // The default value given by hand is still given: 1.0 and 64 win over the files.
    let config = rollout(&format!("rollout --config {} --rows 64", file.display())).unwrap();
    assert_eq!(config.run.run_dir, run_dir);
    assert_eq!(
        (
            config.rollout.rows,
            config.rollout.top_k,
            config.rollout.group_size
        ),
        (64, 2, 4)
    );
    assert_eq!(config.rollout.temperature, 1.0);
    assert_eq!(
        (config.learner.lr, config.learner.tokens.no_tor),
        (1.0, true)
    );

    let config = learner(&format!(
        "learner --config {} --no-tor=false",
        file.display()
    ))
    .unwrap();
    assert_eq!(
        (config.rollout.rows, config.learner.tokens.no_tor),
        (2, false)
    );
}

#[test]
fn what_is_saved_is_loaded() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().display();
    let line = format!(
        "learner --run-dir {run_dir} --algo grpo --rho 0.25 --device cuda:1 --no-tor --resume --after-sync=true"
    );
    let config = learner(&line).unwrap();
    let path = save(&config).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut again = rollout(&format!("rollout --run-dir {run_dir}")).unwrap();
    assert!(
        !again.learner.resume,
        "a later start resumes only when told so"
    );
    again.learner.resume = true;
    assert_eq!(again, config);

    // A later --algo brings its own defaults.
    let dapo = learner(&format!("learner --run-dir {run_dir} --algo dapo")).unwrap();
    assert_eq!(dapo.resolved().clip_high, 0.28);
    save(&dapo).unwrap();
}

/// The flags of a data set are keys of [rollout] like any other, though they are written elsewhere.
#[test]
fn the_keys_of_a_data_set_are_saved_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().display();
    let line = format!(
        "rollout --run-dir {run_dir} --data a.parquet=2,b.jsonl --prompt-key q --image-dir img --max-pixels 1000000"
    );
    let config = rollout(&line).unwrap();
    let keys = config.rollout.source.keys();
    assert_eq!(keys.prompt.as_deref(), Some("q"));
    assert_eq!(keys.image_dir.as_deref(), Some(std::path::Path::new("img")));
    let text = std::fs::read_to_string(save(&config).unwrap()).unwrap();
    assert!(
        text.contains("\nprompt_key = \"q\"\n") && text.contains("\nmax_pixels = 1000000\n"),
        "{text}"
    );
    assert_eq!(
        learner(&format!("learner --run-dir {run_dir}")).unwrap(),
        config
    );
    assert_eq!(
        refused("[rollout]\npromt_key = \"q\"\n"),
        r#"my.toml: unknown key "promt_key" in [rollout]; did you mean "prompt_key"?"#
    );
}

#[test]
fn slips_are_named() {
    assert_eq!(
        refused("[learner]\nrh0 = 1\n"),
        r#"my.toml: unknown key "rh0" in [learner]; did you mean "rho"?"#
    );
    assert_eq!(
        refused("[learner]\ngroup_size = 8\n"),
        r#"my.toml: unknown key "group_size" in [learner]; it belongs under [rollout]"#
    );
    assert_eq!(
        refused("group_size = 8\n"),
        r#"my.toml: unknown key "group_size" outside of any table; it belongs under [rollout]"#
    );
    assert_eq!(
        refused("[lerner]\n"),
        r#"my.toml: unknown table "lerner"; did you mean [learner]?"#
    );
    assert_eq!(
        refused("[learner]\nrho = 1.5\n"),
        "my.toml: rho in [learner] is 1.5: expected a number from 0 to 1"
    );
    assert_eq!(
        refused("[learner]\nrho = \"0.5\"\n"),
        "my.toml: rho in [learner] is \"0.5\": expected a number, got a string"
    );
    assert_eq!(
        refused("[learner]\nrho = [1]\n"),
        "my.toml: rho in [learner] is [1]: a list has no meaning here"
    );
    assert_eq!(
        refused("[learner]\nno_tor = 1\n"),
        "my.toml: no_tor in [learner] is 1: expected true or false"
    );
    assert_eq!(
        refused("[learner]\nalgo = \"ppo\"\n"),
        "my.toml: algo in [learner] is \"ppo\": expected one of dapo, grpo, dr-grpo, rloo, reinforce-plus-plus, reinforce-plus-plus-baseline, gspo, cispo, sapo, gmpo"
    );
    assert_eq!(
        refused("[learner]\nlr = nan\n"),
        "my.toml: lr in [learner] is nan: expected a number of at least 0"
    );
    assert_eq!(
        refused("[learner]\ndevice = \"tpu\"\n"),
        "my.toml: device in [learner] is \"tpu\": expected cpu, cuda or cuda:N, got \"tpu\""
    );
    assert_eq!(
        refused("[rollout]\ngroup_size = 1\n"),
        "my.toml: group_size in [rollout] is 1: expected a whole number of at least 2, below 2^32"
    );
    assert_eq!(
        refused("[run]\nseed = -1\n"),
        "my.toml: seed in [run] is -1: expected a whole number from 0, below 2^63"
    );
    assert_eq!(
        refused("[learner]\nbatch_prompts = 2\nmini_batch_prompts = 3"),
        "mini_batch_prompts (3) is larger than batch_prompts (2) in [learner]"
    );
    assert!(refused("[run]\nconfig = \"x\"\n").contains("unknown key \"config\""));
    assert!(refused("learner = 3\n").contains("expected a table"));
    assert!(refused("[run\nseed = 1").starts_with("my.toml, line 1: not valid TOML"));
    assert!(
        learner("learner --config /nowhere.toml")
            .unwrap_err()
            .to_string()
            .contains("/nowhere.toml")
    );
}

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
            "pass_k (9) in [learner] is larger than group_size (8) in [rollout]",
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

#[test]
fn a_run_folder_does_not_point_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("config.toml"),
        "[run]\nrun_dir = \"/elsewhere\"\n",
    )
    .unwrap();
    let message = learner(&format!("learner --run-dir {}", folder.path().display()))
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("it is taken from the command line or from --config FILE only"),
        "{message}"
    );
}

#[test]
fn the_command_line_has_the_same_ranges() {
    assert!(learner("learner --rho 1.5").is_err());
    assert!(learner("learner --rho -0.1").is_err());
    assert!(rollout("rollout --temperature 0").is_err());
    assert!(rollout("rollout --top-p 0").is_err());
    assert!(rollout("rollout --group-size 1").is_err());
    assert!(rollout("rollout --overlong-buffer 4096").is_err());
}

/// Every key can be written back: none is of a type that TOML or the parser refuses.
#[test]
fn every_default_survives_the_file() {
    fn defaults<A: Args + FromArgMatches>() -> A {
        A::from_arg_matches(
            &load::section_command::<A>()
                .try_get_matches_from([""; 0])
                .unwrap(),
        )
        .unwrap()
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = RunConfig {
        run: defaults(),
        rollout: defaults(),
        learner: defaults(),
    };
    config.run.run_dir = folder.path().to_owned();
    save(&config).unwrap();
    assert_eq!(
        rollout(&format!("rollout --run-dir {}", folder.path().display())).unwrap(),
        config
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(\\[(run|rollout|learner)\\]\n)?([a-z_]{1,12} = [-0-9a-z.\"\\[]{0,8}\n){0,3}") {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), &text).unwrap();
        let _ = learner(&format!("learner --run-dir {}", folder.path().display()));
    }
}
