//! Both programs' command lines over files in a temporary run folder.

use clap::{Args, CommandFactory, FromArgMatches, Parser};
use proptest::prelude::*;

use super::*;

mod objective;

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

#[test]
fn names_are_a_list_in_a_file_and_commas_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().display();
    let line = format!(
        "learner --run-dir {run_dir} --freeze visual.,*.bias --lora-rank 8 --lora-targets q_proj,"
    );
    let config = learner(&line).unwrap();
    let frozen = |config: &RunConfig| config.learner.freeze.as_deref().unwrap().to_vec();
    assert_eq!(frozen(&config), ["visual.", "*.bias"]);
    let text = std::fs::read_to_string(save(&config).unwrap()).unwrap();
    assert!(
        text.contains("\nfreeze = [\"visual.\", \"*.bias\"]\n"),
        "{text}"
    );
    assert_eq!(
        rollout(&format!("rollout --run-dir {run_dir}")).unwrap(),
        config
    );
    // What a run has saved can be undone, and that again is saved.
    let undone = learner(&format!("learner --run-dir {run_dir} --freeze=")).unwrap();
    assert!(frozen(&undone).is_empty());
    save(&undone).unwrap();
    assert_eq!(
        learner(&format!("learner --run-dir {run_dir}")).unwrap(),
        undone
    );

    std::fs::write(
        folder.path().join("config.toml"),
        "[learner]\nfreeze = \"a, b\"\n",
    )
    .unwrap();
    assert_eq!(
        frozen(&learner(&format!("learner --run-dir {run_dir}")).unwrap()),
        ["a", "b"]
    );
    assert_eq!(
        refused("[learner]\nfreeze = 3\n"),
        "my.toml: freeze in [learner] is 3: expected a list, got a whole number"
    );
    assert_eq!(
        refused("[learner]\ndevice = [\"cpu\"]\n"),
        "my.toml: device in [learner] is [\"cpu\"]: expected a string, got a list"
    );
    for key in ["lora_alpha = 16", "lora_targets = [\"q_proj\"]"] {
        let message = refused(&format!("[learner]\n{key}\n"));
        assert!(
            message
                .ends_with("has no effect without LoRA: give lora_rank above 0, or leave it out"),
            "{message}"
        );
    }
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
        refused("[rollout]\ngroup_size = 0\n"),
        "my.toml: group_size in [rollout] is 0: expected a whole number of at least 1, below 2^32"
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
    assert!(rollout("rollout --group-size 0").is_err());
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
