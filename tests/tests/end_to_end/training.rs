//! The loop closes: records one way, weights the other way, and both programs agree on every token's logprob.

use anyhow::{Context, Result, bail};
use shared::telemetry::{Source, read_metrics};

use crate::run::{HANG, Run, STEPS, wait_until};

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

/// More groups per step than one rollout claims ahead when it has rows for one: there is work for two.
const BATCH: u64 = 12;
const ROWS: [&str; 2] = ["--rows", "4"];

#[test]
fn two_rollouts_lead_where_one_leads() -> Result<()> {
    let batch = ["--batch-prompts", &BATCH.to_string()];
    let one = Run::new(STEPS)?;
    let rollout = one.rollout_with(&ROWS)?;
    one.learner(&batch)?.succeed(HANG)?;
    rollout.succeed(HANG)?;
    let expected = one.final_weights()?;

    // Who gets a ticket is chance. That one of the two gets none of a whole run is rare; five times in a row it is a fault.
    for _ in 0..5 {
        let two = Run::new(STEPS)?;
        let (first, second) = (two.rollout_with(&ROWS)?, two.rollout_with(&ROWS)?);
        wait_until("two rollouts that wait for the learner", || {
            let log = std::fs::read_to_string(two.file("rollout.log")).unwrap_or_default();
            log.matches("waiting for a learner").count() == 2
        })?;
        two.learner(&batch)?.succeed(HANG)?;
        first.succeed(HANG)?;
        second.succeed(HANG)?;
        assert!(
            expected == two.final_weights()?,
            "the runs ended with other weights"
        );
        let shares = [groups_of(&two, 0)?, groups_of(&two, 1)?];
        assert_eq!(shares[0] + shares[1], (STEPS * BATCH) as f64);
        if shares.iter().all(|&groups| groups > 0.0) {
            return Ok(());
        }
    }
    bail!("one of two rollouts had nothing to do, five times")
}

/// Groups that the rollout of a seat made.
fn groups_of(run: &Run, seat: usize) -> Result<f64> {
    let rows = read_metrics(&Source::Rollout(seat).path(&run.dir()))?;
    let values = rows.iter().flat_map(|row| &row.values);
    let groups = values.filter(|(name, _)| name == "rollout/groups");
    Ok(groups.map(|(_, value)| value).sum())
}
