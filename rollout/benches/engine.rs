//! The engine on the shipped model, one thread: groups generated and responses scored, in f32 and in 8 bits. Most of a model this small is
//! attention, sampling and what surrounds the products; `rollout bench` measures models of a real size.
#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use models::checkpoint::{Checkpoint, write_f32};
use models::made_up;
use models::processor::Processor;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rollout::engine::{
    Engine, EngineKind, EngineLoader, EngineSettings, Haste, Job, PromptInputs, Threads,
};
use rollout::sampler::{EntropyKind, Sampling};
use shared::ids::{PolicyVersion, Ticket};
use shared::record::Precision;

const GROUPS: u64 = 4;
const GROUP_SIZE: usize = 8;
const NEW_TOKENS: usize = 64;
const PROMPT_TOKENS: usize = 100;

fn engine(precision: Precision) -> (Engine, Vec<PromptInputs>) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/geo-mini/model");
    let processor = Processor::from_dir(&model).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("model.safetensors");
    write_f32(
        &weights,
        &Checkpoint::open(&model).unwrap(),
        &processor.config,
    )
    .unwrap();
    let threads = Threads::new(Some(1), false);
    let loader = EngineLoader::new(&processor.config, threads, EngineKind::Cpu, precision).unwrap();
    let settings = EngineSettings {
        rows: GROUP_SIZE * 4,
        max_response_tokens: NEW_TOKENS,
        cache_blocks: 512,
        eos: Vec::new(), // responses of exactly this length
        run_seed: 1,
        sampling: Sampling {
            temperature: 1.0,
            top_p: 0.99,
            top_k: 0,
            entropy: EntropyKind::Renormalised,
            nucleus_p: 0.95,
            banned: processor.config.tokens.banned(),
            num_tokens: processor.tokenizer.num_ids(),
        },
    };
    let loaded = loader.load(&weights, Haste::Now).unwrap();
    let engine = Engine::new(settings, loaded, PolicyVersion(0)).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let prompts = (0..GROUPS)
        .map(|_| {
            let text = made_up::text(&mut rng, &processor, PROMPT_TOKENS).unwrap();
            let prompt = made_up::prompt(&processor, &text, None, false);
            PromptInputs::new(&processor, &prompt).unwrap()
        })
        .collect();
    (engine, prompts)
}

fn bench(criterion: &mut Criterion) {
    for precision in [Precision::F32, Precision::Int8] {
        let (mut engine, prompts) = engine(precision);
        let mut group = criterion.benchmark_group(format!("engine/{precision}"));
        group.sample_size(10);
        group.throughput(Throughput::Elements(
            GROUPS * (GROUP_SIZE * NEW_TOKENS) as u64,
        ));
        group.bench_function("generate", |bencher| {
            bencher.iter(|| {
                for (ticket, prompt) in (0..).zip(&prompts) {
                    let job = Job {
                        ticket: Ticket(ticket),
                        group_size: GROUP_SIZE,
                        has_greedy: false,
                        prompt: prompt.clone(),
                        blank: None,
                    };
                    engine.submit(job).unwrap();
                }
                while !engine.is_idle() {
                    engine.step().unwrap();
                }
                black_box(engine.take_finished())
            });
        });
        let response = prompts[0].token_ids[..NEW_TOKENS].to_vec();
        let responses: Vec<&[u32]> = vec![&response; GROUP_SIZE];
        group.throughput(Throughput::Elements((GROUP_SIZE * NEW_TOKENS) as u64));
        group.bench_function("score", |bencher| {
            bencher.iter(|| black_box(engine.score(&prompts[0], &responses).unwrap()));
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
