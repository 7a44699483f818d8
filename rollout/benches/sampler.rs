//! Tokens per second of one thread: draw, log-probability and nucleus entropy of a row of logits.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollout::sampler::{EntropyKind, Sampler, Sampling, uniform};

/// Logits of a language model's kind: a few likely tokens above a wide floor.
fn logits(vocab_size: u32) -> Vec<f32> {
    (0..vocab_size)
        .map(|id| {
            #[expect(clippy::cast_possible_truncation, reason = "f32 logits")]
            let noise = uniform(1, u64::from(id), 0, 0) as f32;
            if id % 997 == 5 {
                8.0 + 6.0 * noise
            } else {
                6.0 * noise
            }
        })
        .collect()
}

fn bench(criterion: &mut Criterion) {
    for vocab_size in [384_u32, 151_936] {
        let row = logits(vocab_size);
        let sampling = Sampling {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            entropy: EntropyKind::Renormalised,
            nucleus_p: 0.95,
            banned: vec![5, 17],
            num_tokens: row.len() - 16,
        };
        let mut group = criterion.benchmark_group(format!("sampler/{vocab_size}"));
        group.throughput(Throughput::Elements(1));
        for (name, top_k, top_p) in [
            ("all", 0, 1.0),
            ("top-p 0.9", 0, 0.9),
            ("top-k 50", 50, 1.0),
        ] {
            let mut sampler = Sampler::new(Sampling {
                top_k,
                top_p,
                ..sampling.clone()
            });
            let mut token = 0;
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    token += 1;
                    black_box(sampler.sample(&row, uniform(3, 0, 0, token)))
                });
            });
        }
        let mut scorer = Sampler::new(sampling);
        group.bench_function("score", |bencher| {
            bencher.iter(|| black_box(scorer.score(&row, 9)));
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
