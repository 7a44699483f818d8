//! No room for the weights: one clear line, a non-zero exit, and what was there stays.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tests::programs::{geo_mini, program};

use crate::bad_input::assert_says;
use crate::run::{HANG, Run, STEPS, wait_until};

/// Longest file that the learner may write from some moment on: shorter than its weights, longer than all else.
const LIMIT: u64 = 1 << 20;
/// Writing past the limit is then an error, as on a full disk, and no signal.
const WITHOUT_SIGNAL: &str = "trap '' XFSZ; exec \"$@\"";

/// A limit on the length of files stands for the full disk, since every user may set one.
#[test]
fn a_publication_that_finds_no_room_leaves_the_last_one_and_loses_nothing() -> Result<()> {
    let undisturbed = Run::undisturbed(STEPS)?;

    let run = Run::new(STEPS)?;
    let learner = program("learner")?;
    let child = Command::new("sh")
        .args(["-c", WITHOUT_SIGNAL, "sh"])
        .arg(learner.get_program())
        .args(run.learner_arguments()?)
        .current_dir(tests::programs::root())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    wait_until("the first publication", || run.weights(0).exists())?;
    let published = fs::read(run.weights(0))?;
    assert!(published.len() as u64 > LIMIT);
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process id")?;
    let limit = Rlimit {
        current: Some(LIMIT),
        maximum: Some(LIMIT),
    };
    prlimit(Some(pid), Resource::Fsize, limit)?;
    let rollout = run.rollout()?; // only now there is something to train on
    let result = child.wait_with_output()?;

    let said = String::from_utf8_lossy(&result.stderr);
    assert_eq!(result.status.code(), Some(1), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("rror")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    assert_says(
        said.lines().last().context("it said nothing")?,
        &[
            "nothing was published, the rollouts keep the last version",
            "model.safetensors",
            "File too large",
        ],
    );
    let versions: Vec<_> = fs::read_dir(run.dir().join("weights"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    assert_eq!(versions, [run.weights(0).parent().context("a folder")?]);
    assert_eq!(fs::read_dir(&versions[0])?.count(), 1);
    assert!(fs::read(run.weights(0))? == published);

    // With room again it goes on, with the same rollout, to where it would have come.
    run.learner(&["--resume"])?.succeed(HANG)?;
    rollout.succeed(HANG)?;
    assert!(run.final_weights()? == undisturbed);
    Ok(())
}

/// A disk too small for one publication, mounted where only the learner sees it; then what it left there.
const SMALL_DISK: &str = r#"
mount -t tmpfs -o size=4m tmpfs "$1" || exit 77
"$2" --run-dir "$1/run" --model "$3"
code=$?
echo "left: $(ls -A "$1/run/weights" 2>/dev/null)"
exit $code
"#;

#[test]
fn a_full_disk_at_the_start_is_said_and_leaves_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let learner = program("learner")?;
    let result = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            SMALL_DISK,
            "sh",
        ])
        .args([
            folder.path().as_os_str(),
            learner.get_program(),
            geo_mini().as_os_str(),
        ])
        .current_dir(tests::programs::root())
        .output();
    let result = match result {
        Ok(result)
            if result.status.code() != Some(77) && !result.stderr.starts_with(b"unshare:") =>
        {
            result
        }
        _ => {
            println!("skipped: no small disk can be mounted here (unshare --user --mount)");
            return Ok(());
        }
    };
    let said = String::from_utf8_lossy(&result.stderr);
    assert_eq!(result.status.code(), Some(1), "{said}");
    let line = said.lines().last().context("it said nothing")?;
    assert_says(line, &["no space left", "model.safetensors"]);
    assert_eq!(String::from_utf8_lossy(&result.stdout).trim(), "left:");
    Ok(())
}
