//! The exported graphs (`scripts/export_onnx.sh`) on a plain ONNX Runtime: their numbers against the reference values
//! of `PARITY_FIXTURES` and against the engine, which runs graphs of another form.
//!
//! `// B rows, S new tokens per row, T prompt tokens, M cache slots, K kv heads, D head dim, V vocab`
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test fails where it stands; its numbers are small"
)]
#![allow(missing_docs, reason = "a test binary")]

#[expect(dead_code, reason = "shared with the parity tests")]
#[path = "parity/setup.rs"]
mod setup;

use std::fmt::Debug;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use models::config::ModelConfig;
use models::export::{Source, export};
use models::positions::{VisionPlan, vision_plan};
use ort::environment::Environment;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::{IoBinding, Session};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};
use setup::{Sequence, Setup, Start};
use tests::compare::assert_close;
use tests::fixtures::{Fixtures, PromptCase};

/// A reference token with a smaller margin may be decided by f32 noise.
const SAFE_MARGIN: f64 = 2e-3;
const STEPS: usize = 8;
/// What GroupQueryAttention divides head dims by.
const HEAD_DIM_UNIT: usize = 8;

fn embeds_tolerance(fixtures: &Fixtures) -> f64 {
    fixtures.tolerance(1e-4, &["image_embeds"])
}

fn logits_tolerance(fixtures: &Fixtures) -> f64 {
    fixtures.tolerance(2e-3, &["logits"])
}

/// Logits of the two forms of graph: the same f32 sums in another order.
fn forms_tolerance(fixtures: &Fixtures) -> f64 {
    fixtures.tolerance(2e-4, &["logits"])
}

#[test]
fn image_embeddings_match() {
    let Some(mut model) = Exported::new() else {
        return;
    };
    let forward = model.fixtures.tensors("forward").unwrap();
    let prompts = model.fixtures.prompts().unwrap();
    let mut compared = 0;
    for prompt in prompts.iter().filter(|prompt| !prompt.images.is_empty()) {
        let expected = format!("p{}.image_embeds", prompt.index);
        let expected = forward.f32(&expected).unwrap().data;
        let got = model.image_embeds(prompt);
        let worst = assert_close(
            &prompt.name,
            &got,
            &expected,
            embeds_tolerance(&model.fixtures),
        );
        println!("{}: image embeddings within {worst:.1e}", prompt.name);
        compared += 1;
    }
    assert!(compared > 0, "no fixture prompt has an image");
}

#[test]
fn logits_of_a_ragged_batch_match() {
    let Some(mut model) = Exported::new() else {
        return;
    };
    let prompts = model.fixtures.prompts().unwrap();
    let with_response = |prompt: &PromptCase| {
        let start = model.start(prompt);
        start.with_response(&prompt.responses[0])
    };
    let sequences: Vec<Sequence> = prompts.iter().map(with_response).collect();
    let every = |sequence: &Sequence| (0..sequence.ids.len()).collect();
    let wanted: Vec<Vec<usize>> = sequences.iter().map(every).collect();
    let mut past = model.growing_past(sequences.len());
    let logits = model.prefill(&mut past, &sequences, &wanted);
    let vocab_size = model.config.text.vocab_size;
    let mut rest = logits.as_slice();

    let forward = model.fixtures.tensors("forward").unwrap();
    let cases = prompts.iter().map(|p| (p.index, p.responses[0].clone()));
    let engine = engine_logits(&cases.collect::<Vec<_>>());
    let mut compared = 0;
    for ((prompt, sequence), engine) in prompts.iter().zip(&sequences).zip(&engine) {
        let got;
        (got, rest) = rest.split_at(sequence.ids.len() * vocab_size);
        let worst = assert_close(&prompt.name, got, engine, forms_tolerance(&model.fixtures));
        println!("{}: the engine's logits within {worst:.1e}", prompt.name);
        let stored = format!("p{}.r0.full_logits", prompt.index);
        if forward.has(&stored) {
            let expected = forward.f32(&stored).unwrap().data;
            let worst = assert_close(&stored, got, &expected, logits_tolerance(&model.fixtures));
            println!("{stored}: within {worst:.1e}");
            compared += 1;
        }
    }
    assert!(rest.is_empty() && compared > 0);
}

#[test]
fn greedy_steps_match_with_a_growing_past_and_with_one_written_in_place() {
    let Some(mut model) = Exported::new() else {
        return;
    };
    let prompts = model.fixtures.prompts().unwrap();
    let greedy = model.fixtures.json("greedy").unwrap();
    let cases = greedy["prompts"].as_array().unwrap();
    let prompt_of = |case: &serde_json::Value| {
        let index = case["index"].as_u64().unwrap() as usize;
        prompts.iter().find(|prompt| prompt.index == index).unwrap()
    };
    let steps = STEPS.min(greedy["n"].as_u64().unwrap() as usize);
    let starts: Vec<Start> = cases
        .iter()
        .map(|case| model.start(prompt_of(case)))
        .collect();
    let longest = starts.iter().map(|start| start.sequence.ids.len()).max();
    for (name, mut past) in [
        ("growing", model.growing_past(starts.len())),
        (
            "in place",
            model.fixed_past(starts.len(), longest.unwrap() + steps),
        ),
    ] {
        let (responses, logits) = model.greedy(&mut past, &starts, steps);
        let responses_of = cases.iter().zip(&responses);
        let asked: Vec<_> = responses_of
            .map(|(case, response)| (prompt_of(case).index, response.clone()))
            .collect();
        let mut compared = 0;
        for (row, engine) in engine_logits(&asked).iter().enumerate() {
            let (case, index) = (&cases[row], asked[row].0);
            let margins = case["single_margins"].as_array().unwrap();
            let is_sure = |margin: &&serde_json::Value| margin.as_f64().unwrap() >= SAFE_MARGIN;
            let sure = margins.iter().take(steps).take_while(is_sure).count();
            for (step, token) in responses[row][..sure].iter().enumerate() {
                let expected = case["single"][step].as_u64().unwrap();
                assert_eq!(
                    u64::from(*token),
                    expected,
                    "{name}: prompt {index}, step {step}"
                );
            }
            compared += sure;
            // The engine read prompt and response at once: the logits after the prompt and after each token.
            let after = engine.len() - logits[row].len();
            let what = format!("{name}: prompt {index}");
            let worst = assert_close(
                &what,
                &logits[row],
                &engine[after..],
                forms_tolerance(&model.fixtures),
            );
            println!("{what}: the engine's logits within {worst:.1e}");
        }
        println!("{name}: {compared} greedy tokens equal");
        assert!(compared > 0);
    }
}

/// The fixtures' model as the exporter writes it.
struct Exported {
    fixtures: Fixtures,
    config: ModelConfig,
    vision: Session,
    decoder: Session,
}

impl Exported {
    /// `None` where the model cannot be exported, which must be said clearly.
    fn new() -> Option<Self> {
        let fixtures = Fixtures::open().unwrap();
        let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("onnx");
        let source = Source {
            weights: fixtures.model(),
            model: fixtures.model(),
        };
        let exported = export(&source, &out);
        let head_dim = config.text.head_dim;
        if !head_dim.is_multiple_of(HEAD_DIM_UNIT) {
            let message = exported.unwrap_err().to_string();
            println!("{message}");
            let said = [
                format!("head dim {head_dim}"),
                format!("multiple of {HEAD_DIM_UNIT}"),
            ];
            assert!(said.iter().all(|part| message.contains(part)), "{message}");
            assert!(!message.contains('\n') && !out.exists(), "{message}");
            return None;
        }
        exported.unwrap();
        Some(Self {
            vision: open(&out.join("vision.onnx")),
            decoder: open(&out.join("decoder.onnx")),
            fixtures,
            config,
        })
    }

    fn image_embeds(&mut self, prompt: &PromptCase) -> Vec<f32> {
        let pixels = self.fixtures.tensors("preprocess").unwrap();
        let mut embeds = Vec::new();
        // One image a call: those of one call must have equally many patches.
        for (image, grid) in prompt.images.iter().zip(&prompt.grids) {
            let patches = pixels.f32(&format!("pil.{image}.pixel_values")).unwrap();
            let plan = vision_plan(&[*grid], &self.config.vision);
            let windows = VisionPlan::padded(&plan.window_lengths);
            let images = VisionPlan::padded(&plan.image_lengths);
            let window_shape = [plan.window_lengths.len(), windows.width];
            let image_shape = [plan.image_lengths.len(), images.width];
            let n = plan.num_patches();
            let mut inputs = self.vision.create_binding().unwrap();
            let patch_shape = [patches.shape[0], patches.shape[1]];
            bind(&mut inputs, "pixel_values", patch_shape, patches.data);
            bind(&mut inputs, "patch_order", [n], plan.patch_order);
            let rope_positions = plan.rope_positions.concat();
            bind(&mut inputs, "rope_positions", [n, 2], rope_positions);
            bind(&mut inputs, "window_slots", window_shape, windows.slots);
            bind(&mut inputs, "window_mask", window_shape, windows.mask);
            bind(&mut inputs, "window_unslot", [n], windows.unslot);
            bind(&mut inputs, "image_slots", image_shape, images.slots);
            bind(&mut inputs, "image_unslot", [n], images.unslot);
            let num_tokens = plan.token_order.len();
            bind(&mut inputs, "token_order", [num_tokens], plan.token_order);
            want(&mut inputs, "image_embeds");
            let mut outputs = self.vision.run_binding(&inputs).unwrap();
            embeds.extend(values(&outputs.remove("image_embeds").unwrap()));
        }
        embeds
    }

    /// A prompt with its images embedded.
    fn start(&mut self, prompt: &PromptCase) -> Start {
        let embeds = self.image_embeds(prompt);
        Start::new(&self.config, &prompt.input_ids, &prompt.grids, embeds)
    }

    /// No keys and values yet: those of each pass come back in new, longer tensors.
    fn growing_past(&self, rows: usize) -> Past {
        self.past(rows, 0, false)
    }

    /// Room for all keys and values. NaN shows that no slot is read before it is written.
    fn fixed_past(&self, rows: usize, slots: usize) -> Past {
        let mut past = self.past(rows, slots, true);
        for tensor in &mut past.tensors {
            tensor.extract_tensor_mut().1.fill(f32::NAN);
        }
        past
    }

    fn past(&self, rows: usize, slots: usize, is_in_place: bool) -> Past {
        let text = &self.config.text;
        let shape = [rows, text.num_kv_heads, slots, text.head_dim];
        let tensor = || Tensor::new(&Allocator::default(), shape).unwrap();
        Past {
            tensors: (0..2 * text.num_layers).map(|_| tensor()).collect(),
            is_in_place,
        }
    }

    /// Reads whole sequences, padded on the right with tokens that nothing may look at; gives the wanted logits `[V]`
    /// of one sequence after the other.
    fn prefill(
        &mut self,
        past: &mut Past,
        sequences: &[Sequence],
        wanted: &[Vec<usize>],
    ) -> Vec<f32> {
        let lengths = sequences.iter().map(|sequence| sequence.ids.len());
        let width = lengths.clone().max().unwrap();
        let mut pass = Pass {
            lengths: lengths.collect(),
            ..Pass::default()
        };
        for (row, (sequence, wanted)) in sequences.iter().zip(wanted).enumerate() {
            let padding = std::iter::repeat(7).take(width - sequence.ids.len());
            let ids = sequence.ids.iter().map(|&id| i64::from(id));
            pass.ids.extend(ids.chain(padding.clone()));
            for (all, axis) in pass.positions.iter_mut().zip(&sequence.positions) {
                all.extend(axis.iter().copied().chain(padding.clone()));
            }
            let flat = |column: &usize| (row * width + column) as i64;
            pass.image_embeds.extend(&sequence.image_embeds);
            pass.image_positions
                .extend(sequence.image_columns.iter().map(flat));
            pass.logit_positions.extend(wanted.iter().map(flat));
        }
        self.run(past, pass)
    }

    /// Decodes greedily, the rows side by side; gives the responses and the logits of the prompts' last tokens and of
    /// each response's tokens.
    fn greedy(
        &mut self,
        past: &mut Past,
        starts: &[Start],
        steps: usize,
    ) -> (Vec<Vec<u32>>, Vec<Vec<f32>>) {
        let sequences: Vec<Sequence> = starts.iter().map(|start| start.sequence.clone()).collect();
        let last = |sequence: &Sequence| vec![sequence.ids.len() - 1];
        let wanted: Vec<Vec<usize>> = sequences.iter().map(last).collect();
        let mut logits = self.prefill(past, &sequences, &wanted);
        let (mut responses, mut all) = (
            vec![Vec::new(); starts.len()],
            vec![Vec::new(); starts.len()],
        );
        for step in 0..=steps {
            let rows = logits.chunks_exact(self.config.text.vocab_size);
            for (all, row) in all.iter_mut().zip(rows.clone()) {
                all.extend_from_slice(row);
            }
            if step == steps {
                break;
            }
            let best: Vec<u32> = rows.map(argmax).collect();
            for (response, token) in responses.iter_mut().zip(&best) {
                response.push(*token);
            }
            let positions: Vec<i64> = starts
                .iter()
                .map(|start| start.next_position + step as i64)
                .collect();
            logits = self.run(
                past,
                Pass {
                    lengths: sequences
                        .iter()
                        .map(|sequence| sequence.ids.len() + step + 1)
                        .collect(),
                    ids: best.iter().map(|&token| i64::from(token)).collect(),
                    positions: std::array::from_fn(|_| positions.clone()),
                    logit_positions: (0..starts.len() as i64).collect(),
                    ..Pass::default()
                },
            );
        }
        (responses, all)
    }

    /// One run of the decoder.
    fn run(&mut self, past: &mut Past, pass: Pass) -> Vec<f32> {
        let rows = pass.lengths.len();
        let width = pass.ids.len() / rows;
        let num_image_tokens = pass.image_positions.len();
        let embeds_shape = [num_image_tokens, self.config.text.hidden_size];
        let last_slots = pass.lengths.iter().map(|&length| length as i32 - 1);
        let longest = *pass.lengths.iter().max().unwrap() as i32;
        let mut tensors = self.decoder.create_binding().unwrap();
        bind(&mut tensors, "input_ids", [rows, width], pass.ids);
        bind(
            &mut tensors,
            "position_ids",
            [3, rows, width],
            pass.positions.concat(),
        );
        bind(
            &mut tensors,
            "image_embeds",
            embeds_shape,
            pass.image_embeds,
        );
        bind(
            &mut tensors,
            "image_positions",
            [num_image_tokens],
            pass.image_positions,
        );
        bind(
            &mut tensors,
            "logit_positions",
            [pass.logit_positions.len()],
            pass.logit_positions,
        );
        bind(&mut tensors, "seqlens_k", [rows], last_slots.collect());
        bind(&mut tensors, "total_length", [], vec![longest]);
        let name = |time: &str, index: usize| {
            let kind = ["key", "value"][index % 2];
            format!("{time}_{kind}.{}", index / 2)
        };
        for (index, tensor) in past.tensors.iter_mut().enumerate() {
            tensors.bind_input(name("past", index), tensor).unwrap();
            if past.is_in_place {
                tensors.bind_output(name("present", index), tensor).unwrap();
            } else {
                want(&mut tensors, &name("present", index));
            }
        }
        want(&mut tensors, "logits");
        let mut outputs = self.decoder.run_binding(&tensors).unwrap();
        for (index, tensor) in past
            .tensors
            .iter_mut()
            .enumerate()
            .filter(|_| !past.is_in_place)
        {
            let present = outputs.remove(name("present", index)).unwrap();
            *tensor = present.downcast().unwrap();
        }
        values(&outputs["logits"])
    }
}

/// Keys and values of all layers: key 0, value 0, key 1, ..., f32 `[B, K, M, D]`.
struct Past {
    tensors: Vec<Tensor<f32>>,
    is_in_place: bool,
}

/// New tokens of B rows, as the decoder's inputs are documented in `models::graph::decoder`.
#[derive(Default)]
struct Pass {
    /// Tokens of each row after the pass, padding not counted.
    lengths: Vec<usize>,
    ids: Vec<i64>,
    positions: [Vec<i64>; 3],
    image_embeds: Vec<f32>,
    image_positions: Vec<i64>,
    logit_positions: Vec<i64>,
}

fn open(graph: &Path) -> Session {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    let make = || {
        ort::init_from(rollout::engine::library::path())
            .unwrap()
            .with_telemetry(false)
            .build()
            .unwrap()
    };
    let mut builder = Session::builder(ENVIRONMENT.get_or_init(make)).unwrap();
    builder.commit_from_file(graph).unwrap()
}

fn bind<T, const RANK: usize>(
    tensors: &mut IoBinding,
    name: &str,
    shape: [usize; RANK],
    values: Vec<T>,
) where
    T: PrimitiveTensorElementType + Debug + Clone + 'static,
{
    let tensor = Tensor::from_array((shape, values)).unwrap();
    tensors.bind_input(name, &tensor).unwrap();
}

fn want(tensors: &mut IoBinding, output: &str) {
    tensors
        .bind_output_to_device(output, &MemoryInfo::default())
        .unwrap();
}

fn values(output: &DynValue) -> Vec<f32> {
    output.try_extract_tensor().unwrap().1.to_vec()
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}

/// Names the folder that [`engine`] works in.
const ENGINE_FOLDER: &str = "EXPORTED_TEST_ENGINE_FOLDER";

/// The engine's logits of every token of prompts with a response: the prompt's index and the response's tokens.
///
/// In a process of its own, as ONNX Runtime's environment is one per process and the engine has its own.
fn engine_logits(asked: &[(usize, Vec<u32>)]) -> Vec<Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("asked.json"),
        serde_json::to_vec(asked).unwrap(),
    )
    .unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["engine", "--exact", "--ignored"])
        .env(ENGINE_FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let read = |row: usize| {
        let bytes = std::fs::read(folder.path().join(row.to_string())).unwrap();
        bytemuck::pod_collect_to_vec(&bytes)
    };
    (0..asked.len()).map(read).collect()
}

#[test]
#[ignore = "a part of the other tests, which start it in a process of its own"]
fn engine() {
    let Some(folder) = std::env::var_os(ENGINE_FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let asked = std::fs::read(folder.join("asked.json")).unwrap();
    let asked: Vec<(usize, Vec<u32>)> = serde_json::from_slice(&asked).unwrap();
    let mut setup = Setup::new();
    let prompts = setup.prompts.clone();
    let mut sequence = |(index, response): &(usize, Vec<u32>)| {
        let prompt = prompts.iter().find(|prompt| prompt.index == *index);
        setup.start(prompt.unwrap()).with_response(response)
    };
    let sequences: Vec<Sequence> = asked.iter().map(&mut sequence).collect();
    for (row, logits) in setup.forward(&sequences).iter().enumerate() {
        std::fs::write(
            folder.join(row.to_string()),
            bytemuck::cast_slice(&logits.concat()),
        )
        .unwrap();
    }
}
