//! The exported graphs (`scripts/export_onnx.sh`) on a plain ONNX Runtime: their numbers against the reference values
//! of `PARITY_FIXTURES` and against the engine, which runs graphs of another form. Those for a device are in f32 here and run
//! on the CPU provider, which has every operator of the standard.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test fails where it stands; its numbers are small"
)]
#![allow(missing_docs, reason = "a test binary")]
#![allow(
    clippy::print_stdout,
    reason = "shown with a failing test, to tell which form it was"
)]

mod blocks;
mod bound;
mod head;
mod model;
mod paged;
#[expect(dead_code, reason = "shared with the parity tests")]
#[path = "../parity/setup.rs"]
mod setup;

use std::path::Path;
use std::process::Command;

use model::Exported;
use models::graph::{Cuda, CudaCache, Elements, Form, Operators, Trt};
use serde_json::Value;
use setup::{Sequence, Setup, Start};
use tests::compare::assert_close;
use tests::fixtures::PromptCase;

const EMBEDS_TOLERANCE: f64 = 1e-4;
const LOGITS_TOLERANCE: f64 = 2e-3;
const STEPS: usize = 8;
/// Slots of a cache that is fixed: the longest prompt, its response, and some that nothing is written to.
const SLOTS: usize = 256;

/// The forms whose decoders are run the same way.
fn forms() -> [Form; 4] {
    let elements = Elements::F32;
    let trt = |operators, candidates| {
        Form::Trt(Trt {
            elements,
            operators,
            slots: SLOTS,
            candidates,
        })
    };
    let cuda = Cuda {
        elements,
        cache: CudaCache::Rows,
        candidates: Some(64),
    };
    [
        Form::Portable,
        trt(Operators::Native, Some(64)),
        trt(Operators::Decomposed, None),
        Form::Cuda(cuda),
    ]
}

/// The fixtures' model in each of the forms.
fn models() -> impl Iterator<Item = Exported> {
    let told = |form: &Form| println!("{form:?}");
    let forms = forms().into_iter().inspect(told);
    forms.filter_map(Exported::new)
}

#[test]
fn image_embeddings_match() {
    models().for_each(check_image_embeddings);
}

fn check_image_embeddings(mut model: Exported) {
    let forward = model.fixtures.tensors("forward").unwrap();
    let prompts = model.fixtures.prompts().unwrap();
    let tolerance = model.tolerance(EMBEDS_TOLERANCE, "image_embeds");
    let mut compared = 0;
    for prompt in prompts.iter().filter(|prompt| !prompt.images.is_empty()) {
        let expected = format!("p{}.image_embeds", prompt.index);
        let expected = forward.f32(&expected).unwrap().data;
        let got = model.image_embeds(prompt);
        let worst = assert_close(&prompt.name, &got, &expected, tolerance);
        println!("{}: image embeddings within {worst:.1e}", prompt.name);
        compared += 1;
    }
    assert!(compared > 0, "no fixture prompt has an image");
}

#[test]
fn logits_of_a_ragged_batch_match() {
    models().for_each(check_ragged_batch);
}

fn check_ragged_batch(mut model: Exported) {
    let prompts = model.fixtures.prompts().unwrap();
    let with_response = |prompt: &PromptCase| {
        let start = model.start(prompt);
        start.with_response(&prompt.responses[0])
    };
    let sequences: Vec<Sequence> = prompts.iter().map(with_response).collect();
    let every = |sequence: &Sequence| (0..sequence.ids.len()).collect();
    let wanted: Vec<Vec<usize>> = sequences.iter().map(every).collect();
    let mut past = model.past(sequences.len(), 0);
    let logits = model.prefill(&mut past, &sequences, &wanted);
    let vocab_size = model.config.text.vocab_size;
    let mut rest = logits.as_slice();

    let forward = model.fixtures.tensors("forward").unwrap();
    let cases = prompts.iter().map(|p| (p.index, p.responses[0].clone()));
    let engine = engine_logits(&cases.collect::<Vec<_>>());
    let forms_tolerance = model.forms_tolerance();
    let tolerance = model.tolerance(LOGITS_TOLERANCE, "logits");
    let mut compared = 0;
    for ((prompt, sequence), engine) in prompts.iter().zip(&sequences).zip(&engine) {
        let got;
        (got, rest) = rest.split_at(sequence.ids.len() * vocab_size);
        let worst = assert_close(&prompt.name, got, engine, forms_tolerance);
        println!("{}: the engine's logits within {worst:.1e}", prompt.name);
        let stored = format!("p{}.r0.full_logits", prompt.index);
        if forward.has(&stored) {
            let expected = forward.f32(&stored).unwrap().data;
            let worst = assert_close(&stored, got, &expected, tolerance);
            println!("{stored}: within {worst:.1e}");
            compared += 1;
        }
    }
    assert!(rest.is_empty() && compared > 0);
}

#[test]
fn sequences_may_be_read_in_ragged_pieces_by_a_trt_graph() {
    models()
        .filter(|model| matches!(model.form, Form::Trt(_)))
        .for_each(check_pieces);
}

fn check_pieces(mut model: Exported) {
    let prompts = model.fixtures.prompts().unwrap();
    let with_response = |prompt: &PromptCase| {
        let start = model.start(prompt);
        start.with_response(&prompt.responses[0])
    };
    let sequences: Vec<Sequence> = prompts.iter().map(with_response).collect();
    let ends: Vec<usize> = sequences.iter().map(|row| row.ids.len()).collect();
    // Some early, some late: through images too.
    let parts = 1..=sequences.len();
    let cut = |(&end, part): (&usize, usize)| end * part / (sequences.len() + 1);
    let cuts: Vec<usize> = ends.iter().zip(parts).map(cut).collect();
    let mut past = model.past(sequences.len(), 0);
    let nothing = vec![Vec::new(); sequences.len() - 1];
    let nothing = [vec![vec![0]], nothing].concat(); // a row of logits there must be
    model.read(&mut past, &sequences, &cuts, &nothing);
    let spans = cuts.iter().zip(&ends);
    let wanted: Vec<Vec<usize>> = spans.map(|(&cut, &end)| (cut..end).collect()).collect();
    let logits = model.read(&mut past, &sequences, &ends, &wanted);

    let forward = model.fixtures.tensors("forward").unwrap();
    let tolerance = model.tolerance(LOGITS_TOLERANCE, "logits");
    let vocab_size = model.config.text.vocab_size;
    let mut rest = logits.as_slice();
    for (prompt, wanted) in prompts.iter().zip(&wanted) {
        let got;
        (got, rest) = rest.split_at(wanted.len() * vocab_size);
        let stored = format!("p{}.r0.full_logits", prompt.index);
        let expected = forward.f32(&stored).unwrap().data;
        let expected = &expected[expected.len() - got.len()..];
        let worst = assert_close(&stored, got, expected, tolerance);
        println!("{stored} from {}: within {worst:.1e}", wanted[0]);
    }
    assert!(rest.is_empty());
}

#[test]
fn greedy_steps_match_with_a_growing_past_and_with_one_written_in_place() {
    models().for_each(check_greedy_steps);
}

fn check_greedy_steps(mut model: Exported) {
    let prompts = model.fixtures.prompts().unwrap();
    let greedy = model.fixtures.json("greedy").unwrap();
    let cases = greedy["prompts"].as_array().unwrap();
    let prompt_of = |case: &Value| {
        let index = case["index"].as_u64().unwrap() as usize;
        prompts.iter().find(|prompt| prompt.index == index).unwrap()
    };
    let steps = STEPS.min(greedy["n"].as_u64().unwrap() as usize);
    let starts = cases.iter().map(|case| model.start(prompt_of(case)));
    let starts: Vec<Start> = starts.collect();
    let longest = starts.iter().map(|start| start.sequence.ids.len()).max();
    let slots = longest.unwrap() + steps;
    let tolerance = model.forms_tolerance();
    let safe_margin = model.tolerance(LOGITS_TOLERANCE, "logits");
    for (name, slots) in [("growing", 0), ("in place", slots)] {
        let mut past = model.past(starts.len(), slots);
        let responses = model.greedy(&mut past, &starts, steps);
        let asked = cases.iter().zip(&responses).map(|(case, response)| {
            let read = &response.tokens[..steps];
            (prompt_of(case).index, read.to_vec())
        });
        let engine = engine_logits(&asked.collect::<Vec<_>>());
        let mut compared = 0;
        for ((case, response), engine) in cases.iter().zip(&responses).zip(&engine) {
            let what = format!("{name}: prompt {}", case["index"]);
            let margins = case["single_margins"].as_array().unwrap();
            let is_sure = |margin: &&Value| margin.as_f64().unwrap() >= safe_margin;
            let sure = margins.iter().take(steps).take_while(is_sure).count();
            let expected = &case["single"].as_array().unwrap()[..sure];
            assert_eq!(&response.tokens[..sure], expected, "{what}");
            compared += sure;
            // The engine read prompt and response at once; what it says of the prompt's other tokens is not compared.
            let engine = &engine[engine.len() - response.logits.len()..];
            let worst = assert_close(&what, &response.logits, engine, tolerance);
            println!("{what}: the engine's logits within {worst:.1e}");
        }
        println!("{name}: {compared} greedy tokens equal");
        assert!(compared > 0);
    }
}

/// Names the folder that [`engine`] works in.
const ENGINE_FOLDER: &str = "EXPORTED_TEST_ENGINE_FOLDER";

/// The engine's logits of every token of prompts with a response: the prompt's index and the response's tokens.
///
/// In a process of its own, as ONNX Runtime's environment is one per process and the engine has its own.
fn engine_logits(asked: &[(usize, Vec<u32>)]) -> Vec<Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    let json = serde_json::to_vec(asked).unwrap();
    std::fs::write(folder.path().join("asked.json"), json).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["engine", "--exact", "--ignored"])
        .env(ENGINE_FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
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
        let logits = logits.concat();
        std::fs::write(folder.join(row.to_string()), bytemuck::cast_slice(&logits)).unwrap();
    }
}
