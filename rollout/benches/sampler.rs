//! Logits per second of one thread: statistics (with the entropy of the nucleus of mass 0.95) and draw of one row.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollout::sampler::{EntropyKind, Sampler, Sampling, uniform};

/// Flat logits: normal with standard deviation 1, as of a model with random weights.
fn flat(vocab_size: u32) -> Vec<f32> {
    let number = |id, index| uniform(1, u64::from(id), 0, index);
    (0..vocab_size)
        .map(|id| {
            // The sum of twelve uniform numbers is near enough to a normal one.
            let sum: f64 = (0..12).map(|index| number(id, index)).sum();
            #[expect(clippy::cast_possible_truncation, reason = "f32 logits")]
            let logit = (sum - 6.0) as f32;
            logit
        })
        .collect()
}

/// Logits of a language model's kind: some 64 likely tokens above a wide floor; about 15 of them make the nucleus.
fn peaked(vocab_size: u32) -> Vec<f32> {
    let mut row = flat(vocab_size);
    for logit in &mut row {
        *logit *= 2.0;
    }
    let step = vocab_size as usize / 64 - 1;
    for (index, logit) in (0..).zip(row.iter_mut().skip(5).step_by(step)) {
        #[expect(clippy::cast_possible_truncation, reason = "f32 logits")]
        let height = uniform(2, index, 0, 0) as f32;
        *logit = 10.0 + 8.0 * height;
    }
    row
}

fn bench(criterion: &mut Criterion) {
    for vocab_size in [16_384_u32, 151_936] {
        for (kind, row) in [("peaked", peaked(vocab_size)), ("flat", flat(vocab_size))] {
            let sampling = Sampling {
                temperature: 1.0,
                top_p: 1.0,
                top_k: 0,
                entropy: EntropyKind::Renormalised,
                nucleus_p: 0.95,
                banned: vec![7, 17, 1000, 1001, 1002],
                num_tokens: row.len() - 16,
            };
            let mut group = criterion.benchmark_group(format!("sampler/{vocab_size}/{kind}"));
            group.throughput(Throughput::Elements(u64::from(vocab_size)));
            for (name, top_k, top_p) in [
                ("top-p 1.0", 0, 1.0),
                ("top-p 0.99", 0, 0.99),
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
}

criterion_group!(benches, bench);
criterion_main!(benches);
