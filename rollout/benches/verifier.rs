//! Time per judged case of both modes, with the slowest case of each.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollout::reward::{boxed, compat_boxed, compat_equivalent, equivalent};

struct Case {
    prediction: String,
    answer: String,
    is_response: bool,
}

fn cases() -> Vec<Case> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/grading");
    let mut cases = Vec::new();
    for name in ["cases.jsonl", "more_cases.jsonl", "own_cases.jsonl"] {
        let text = std::fs::read_to_string(folder.join(name)).expect("the judged cases");
        for line in text.lines() {
            let case: serde_json::Value = serde_json::from_str(line).expect("a case");
            let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
            cases.push(Case {
                prediction: text("prediction"),
                answer: text("answer"),
                is_response: case["mode"] == "response",
            });
        }
    }
    cases
}

fn robust(case: &Case) -> bool {
    if case.is_response {
        boxed(&case.prediction).is_some_and(|answer| equivalent(&answer, &case.answer))
    } else {
        equivalent(&case.prediction, &case.answer)
    }
}

fn compat(case: &Case) -> bool {
    let given = if case.is_response {
        compat_boxed(&case.prediction)
    } else {
        &case.prediction
    };
    compat_equivalent(given, &case.answer)
}

fn bench(criterion: &mut Criterion) {
    let cases = cases();
    for name in ["robust", "compat"] {
        let mode = if name == "robust" { robust } else { compat };
        // The least of some runs of each case: what the case costs, not what else the machine did.
        let mut times: Vec<(Duration, &Case)> = cases
            .iter()
            .map(|case| {
                let once = |_| {
                    let start = Instant::now();
                    black_box(mode(black_box(case)));
                    start.elapsed()
                };
                ((0..5).map(once).min().unwrap_or_default(), case)
            })
            .collect();
        times.sort_by_key(|(time, _)| *time);
        let median = times[times.len() / 2].0;
        if let Some((worst, case)) = times.last() {
            #[allow(clippy::print_stdout, reason = "what the bench is for")]
            {
                let shown: String = case.prediction.chars().take(80).collect();
                println!(
                    "{name}: median {median:?}, worst {worst:?}: {shown:?} for {:?}",
                    case.answer
                );
            }
        }
        let mut group = criterion.benchmark_group("verifier");
        group.throughput(Throughput::Elements(cases.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| cases.iter().filter(|case| mode(black_box(case))).count());
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
