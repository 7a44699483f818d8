//! ToR sets and weights of a rollout batch of a million response tokens.
#![allow(missing_docs, reason = "a bench")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use learner::token_weights::{Ties, TokenWeights, TorSettings};
use shared::config::{PerceptionSignal, TorScope};

const NUM_TOKENS: usize = 1 << 20;
const RESPONSE_TOKENS: usize = 256;

/// Entropies as they are: more than half exactly 0, the rest spread out.
fn scores(seed: u32, num_zero_in_8: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let score = |bits: u32| {
        if bits % 8 < num_zero_in_8 {
            0.0
        } else {
            f32::from_bits(0x3F80_0000 | (bits >> 1)) - 1.0
        }
    };
    (0..NUM_TOKENS).map(|_| score(next())).collect()
}

fn bench(criterion: &mut Criterion) {
    let entropies = scores(1, 5);
    let sensitivities = scores(2, 0);
    let spans: Vec<_> = (0..NUM_TOKENS)
        .step_by(RESPONSE_TOKENS)
        .map(|start| start..start + RESPONSE_TOKENS)
        .collect();
    let mut group = criterion.benchmark_group("token_weights");
    group
        .throughput(Throughput::Elements(NUM_TOKENS as u64))
        .sample_size(20);
    for scope in [TorScope::Batch, TorScope::Response] {
        let settings = TorSettings {
            alpha: 1.0,
            beta: 0.5,
            overlap: 1.0,
            rho_reasoning: 0.3,
            rho_perception: 0.3,
            signal: PerceptionSignal::LogpDiff,
            scope,
            ties: Ties::Shuffle { seed: 7 },
            shaping: None,
        };
        group.bench_function(
            BenchmarkId::from_parameter(format!("{scope:?}")),
            |bencher| {
                bencher.iter(|| {
                    TokenWeights::from_scores(
                        black_box(&entropies),
                        black_box(&sensitivities),
                        &spans,
                        &settings,
                    )
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
