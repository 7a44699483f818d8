//! The loop closes: records one way, weights the other way, and both programs agree on every token's logprob.

use anyhow::{Context, Result};
use shared::telemetry::read_metrics;

use crate::run::{HANG, Run, STEPS};

#[test]
fn a_short_run_trains_publishes_and_agrees_on_logprobs() -> Result<()> {
    let run = Run::new(STEPS)?;
    let synced = run.file("synced");
    let after_sync = format!("echo \"$TOR_VERSION\" >> {}", synced.display());
    let rollout = run.rollout()?;
    run.learner(&["--after-sync", &after_sync])?.succeed(HANG)?;
    rollout.succeed(HANG)?; // the learner's end ends it too

    let rows = read_metrics(&run.dir().join("metrics.jsonl"))?;
    assert_eq!(rows.len() as u64, STEPS);
    for row in &rows {
        let value = |name: &str| {
            let found = row
                .values
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| *value);
            found.with_context(|| format!("step {}: no {name}", row.step))
        };
        assert!(value("train/logprob_diff_max")? <= 1e-4, "{row:?}");
        assert!(value("actor/grad_norm")?.is_finite(), "{row:?}");
        // |T_r| = |T_p| = ceil(0.3 N): the shares are what rho says, up to one token.
        assert!(
            (value("tor/reasoning_fraction")? - 0.3).abs() < 0.02,
            "{row:?}"
        );
        assert!(
            (value("tor/perception_fraction")? - 0.3).abs() < 0.02,
            "{row:?}"
        );
    }
    let versions = std::fs::read_to_string(synced)?;
    assert_eq!(versions.lines().last(), Some(STEPS.to_string().as_str()));

    let before = models::checkpoint::Checkpoint::open(&tests::programs::geo_mini())?;
    let head = before.read_f32("lm_head.weight")?;
    assert!(
        run.final_weights()?
            .windows(head.len())
            .all(|window| window != head),
        "the head has not moved"
    );
    Ok(())
}

#[test]
fn two_rollouts_lead_where_one_leads() -> Result<()> {
    let one = Run::new(STEPS)?;
    let rollout = one.rollout()?;
    one.learner(&[])?.succeed(HANG)?;
    rollout.succeed(HANG)?;

    let two = Run::new(STEPS)?;
    let (first, second) = (two.rollout()?, two.rollout()?);
    two.learner(&[])?.succeed(HANG)?;
    first.succeed(HANG)?;
    second.succeed(HANG)?;

    assert!(
        one.final_weights()? == two.final_weights()?,
        "the runs ended with other weights"
    );
    Ok(())
}
