//! New weights: when they are used, and what the stages did meanwhile.

use std::path::Path;

use shared::ids::PolicyVersion;
use shared::telemetry::{Source, read_metrics};

use crate::run_folder::Run;

#[test]
fn new_weights_are_used_from_the_next_ticket_on() {
    let mut run = Run::new();
    run.start(&[]);
    run.open(0..7);
    run.wait_for(7);
    for version in 1..4 {
        run.publish(version);
        run.open(version * 7..version * 7 + 7);
        run.wait_for(usize::try_from(version * 7 + 7).unwrap());
    }
    let log = run.logs();
    assert!(log.contains("skipped sample broken"), "{log}");
    check_shares(&run.dir());
    for (ticket, record) in run.finish() {
        for response in &record.responses {
            let versions = (response.first_version.0, response.last_version.0);
            assert_eq!(versions, (ticket.0 / 7, ticket.0 / 7), "ticket {ticket}");
        }
    }
}

/// Each version's row says what share of the time the stages worked, waited or were held up, and what the engine did.
fn check_shares(run_dir: &Path) {
    let rows = read_metrics(&Source::Rollout(0).path(run_dir)).unwrap();
    let versions: Vec<u64> = rows.iter().map(|row| row.step).collect();
    assert_eq!(versions, [0, 1, 2], "the last version's row is still open");
    for row in rows {
        let share = |name: &str| {
            let mut values = row.values.iter().filter(|(key, _)| key == name);
            let (_, value) = values.next().unwrap_or_else(|| panic!("no {name}"));
            assert!((0.0..=1.0).contains(value), "{name} = {value}");
            *value
        };
        let sum = |of: &str, parts: &[&str]| -> f64 {
            let names = parts.iter().map(|part| of.replace('*', part));
            names.map(|name| share(&name)).sum()
        };
        for stage in ["reload", "claim", "generate", "emit"] {
            let name = format!("rollout/stage/{stage}_*");
            let total = sum(&name, &["busy", "waiting", "blocked"]);
            // All of the time is one of the three; the rest is the rounding of a sum of quotients.
            assert!((total - 1.0).abs() < 1e-9, "{stage}: {total}");
        }
        let parts = ["vision", "prefill", "decode", "sampling", "blank"];
        let engine = sum("rollout/engine/*_share", &parts);
        let generate = share("rollout/stage/generate_busy");
        assert!(
            engine > 0.0 && engine <= generate + 1e-9,
            "{engine} of {generate}"
        );
        // The samples with an image have every part of the engine work.
        for part in parts {
            let name = format!("rollout/engine/{part}_share");
            assert!(share(&name) > 0.0, "{name}");
        }
        for stage in ["claim", "generate", "emit"] {
            assert!(share(&format!("rollout/stage/{stage}_busy")) > 0.0);
        }
        // Tickets come in batches here: the stages before and after the engine mostly wait.
        assert!(share("rollout/stage/emit_waiting") > 0.0);
    }
}

/// First and last version of every response when weights come while the engine is full, in a run that allows staleness.
fn versions_around_new_weights(flags: &[&str]) -> Vec<(u64, u64)> {
    let mut run = Run::new();
    let config = run.dir().join("config.toml");
    std::fs::write(config, "[learner]\nmax_staleness = 9\n").unwrap();
    run.start(&[&["--rows", "4", "--max-response-tokens=100"], flags].concat());
    let mut num_open = 0;
    loop {
        // Always some tickets ahead of the engine: it never runs empty by itself.
        run.open(num_open..num_open + 14);
        num_open += 14;
        assert!(num_open < 700, "no response came from the new weights");
        run.wait_for(usize::try_from(num_open).unwrap() - 10);
        let newest = run.control.version().unwrap();
        if newest == PolicyVersion(0) {
            run.publish(1);
        }
        let mut responses = run.records.values().flat_map(|record| &record.responses);
        if responses.any(|response| response.first_version == PolicyVersion(1)) {
            break;
        }
    }
    run.wait_for(usize::try_from(num_open).unwrap());
    let records = run.finish();
    let responses = records.values().flat_map(|record| &record.responses);
    responses
        .map(|response| (response.first_version.0, response.last_version.0))
        .collect()
}

#[test]
fn responses_under_way_continue_on_new_weights_or_are_finished_first() {
    let finish = ["--new-weights", "finish", "--finish-steps"];
    for flags in [&[][..], &[&finish[..], &["2"]].concat()] {
        let versions = versions_around_new_weights(flags);
        assert!(versions.contains(&(0, 1)), "{flags:?}: {versions:?}");
    }
    // Ends only if no group begins while the weights wait: otherwise the engine would never be through with the old ones.
    let versions = versions_around_new_weights(&[&finish[..], &["100000"]].concat());
    assert!(!versions.contains(&(0, 1)), "{versions:?}");
    assert!(versions.contains(&(0, 0)) && versions.contains(&(1, 1)));
}
