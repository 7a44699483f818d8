//! What a real run writes into metrics.jsonl.

use super::*;

/// The names that the field knows, and those of the token sets.
const NAMES: [&str; 40] = [
    "actor/pg_loss",
    "actor/pg_clipfrac_higher",
    "actor/pg_clipfrac_lower",
    "actor/ppo_kl",
    "actor/kl_loss",
    "actor/entropy",
    "actor/grad_norm",
    "actor/lr",
    "critic/score/mean",
    "critic/score/max",
    "critic/score/min",
    "critic/rewards/mean",
    "critic/rewards/max",
    "critic/rewards/min",
    "critic/advantages/mean",
    "critic/advantages/max",
    "critic/advantages/min",
    "response_length/mean",
    "response_length/max",
    "response_length/min",
    "response_length/clip_ratio",
    "prompt_length/mean",
    "prompt_length/max",
    "prompt_length/min",
    "timing_s/gen",
    "timing_s/adv",
    "timing_s/ref",
    "timing_s/update_actor",
    "timing_s/sync",
    "timing_s/step",
    "perf/total_num_tokens",
    "perf/throughput",
    "perf/mfu",
    "train/mismatch_kl",
    "tor/reasoning_fraction",
    "tor/perception_fraction",
    "tor/overlap_fraction",
    "tor/entropy_threshold",
    "tor/sensitivity_threshold",
    "tor/rank_correlation",
];

#[test]
fn every_step_has_the_names_that_the_field_knows() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = undisturbed(folder.path(), &["--algo", "grpo", "--steps", "2"]);
    let rows = read_metrics(&run_dir.join("metrics.jsonl")).unwrap();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        let value = |name: &str| {
            let mut found = row.values.iter().filter(|(known, _)| known == name);
            found.next().unwrap_or_else(|| panic!("no {name}")).1
        };
        for name in NAMES {
            assert!(value(name).is_finite(), "{name} is {}", value(name));
        }
        // Neither idle nor faster than bare products, by more than the noise of a measurement.
        let utilisation = value("perf/mfu");
        assert!(utilisation > 0.0 && utilisation < 2.0, "{utilisation}");
    }
}
