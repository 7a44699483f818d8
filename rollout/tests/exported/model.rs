//! The fixtures' model as the exporter writes it in some form, on a plain ONNX Runtime: files by their paths, no operators
//! of ours.
//!
//! `// B rows, M cache slots, K kv heads, D head dim, V vocab`

use std::ops::Range;

use models::config::ModelConfig;
use models::export::{Source, export};
use models::graph::{CudaCache, Form};
use models::positions::{VisionPlan, vision_plan};
use ort::memory::Allocator;
use ort::value::Tensor;
use tests::fixtures::{Fixtures, PromptCase};

use super::bound::{Bound, bind, values, want};
use super::head::{Head, SETTINGS};
use super::paged;
use super::setup::{Sequence, Start};

/// Logits of the two forms of graph: the same sums in another order.
const FORMS_TOLERANCE: f64 = 2e-4;
/// What GroupQueryAttention divides head dims by.
const HEAD_DIM_UNIT: usize = 8;

/// The fixtures' model as the exporter writes it.
pub(crate) struct Exported {
    pub(crate) fixtures: Fixtures,
    pub(crate) config: ModelConfig,
    pub(crate) form: Form,
    vision: Bound,
    pub(crate) decoder: Bound,
}

impl Exported {
    /// `None` where the model cannot be exported, which must be said clearly.
    pub(crate) fn new(form: Form) -> Option<Self> {
        let fixtures = Fixtures::open().unwrap();
        let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("onnx");
        let source = Source {
            weights: fixtures.model(),
            model: fixtures.model(),
        };
        let exported = export(&source, &out, form);
        let head_dim = config.text.head_dim;
        if !head_dim.is_multiple_of(HEAD_DIM_UNIT) && !matches!(form, Form::Trt(_)) {
            let message = exported.unwrap_err().to_string();
            let reason = format!("multiple of {HEAD_DIM_UNIT}");
            assert!(
                message.contains(&format!("head dim {head_dim} ")),
                "{message}"
            );
            assert!(message.contains(&reason), "{message}");
            assert!(!message.contains('\n') && !out.exists(), "{message}");
            return None;
        }
        exported.unwrap();
        let decoder = out.join("decoder.onnx");
        Some(Self {
            form,
            vision: Bound::open(&out.join("vision.onnx")),
            decoder: match form {
                Form::Cuda(cuda) if cuda.cache == CudaCache::Blocks => {
                    Bound::open_with(&decoder, paged::operators(), paged::DOMAIN)
                }
                _ => Bound::open(&decoder),
            },
            fixtures,
            config,
        })
    }

    /// `usual`, or what the set's own noise asks for: two f32 results lie twice that apart.
    pub(crate) fn tolerance(&self, usual: f64, quantity: &str) -> f64 {
        self.fixtures.tolerance(usual, &[quantity])
    }

    pub(crate) fn forms_tolerance(&self) -> f64 {
        FORMS_TOLERANCE.max(2.0 * self.noise("logits"))
    }

    /// How far the reference's f32 lies from its f64.
    fn noise(&self, quantity: &str) -> f64 {
        let meta = self.fixtures.json("meta").unwrap();
        let noise = meta["tolerances_fp32_vs_fp64"][quantity].as_f64();
        noise.unwrap_or(0.0)
    }

    pub(crate) fn image_embeds(&mut self, prompt: &PromptCase) -> Vec<f32> {
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
            let mut io = self.vision.binding();
            let patch_shape = [patches.shape[0], patches.shape[1]];
            bind(&mut io, "pixel_values", patch_shape, patches.data);
            bind(&mut io, "patch_order", [n], plan.patch_order);
            let rope_positions = plan.rope_positions.concat();
            bind(&mut io, "rope_positions", [n, 2], rope_positions);
            bind(&mut io, "window_slots", window_shape, windows.slots);
            bind(&mut io, "window_mask", window_shape, windows.mask);
            bind(&mut io, "window_unslot", [n], windows.unslot);
            bind(&mut io, "image_slots", image_shape, images.slots);
            bind(&mut io, "image_unslot", [n], images.unslot);
            let num_tokens = plan.token_order.len();
            bind(&mut io, "token_order", [num_tokens], plan.token_order);
            want(&mut io, "image_embeds");
            let outputs = self.vision.session.run_binding(&io).unwrap();
            embeds.extend(values(&outputs["image_embeds"]));
        }
        embeds
    }

    /// A prompt with its images embedded.
    pub(crate) fn start(&mut self, prompt: &PromptCase) -> Start {
        let embeds = self.image_embeds(prompt);
        Start::new(&self.config, &prompt.input_ids, &prompt.grids, embeds)
    }

    /// A cache of `slots` slots, written in place; of none, it grows by coming back in new tensors. What it is filled with
    /// shows that no slot counts before it is written.
    pub(crate) fn past(&self, rows: usize, slots: usize) -> Past {
        let text = &self.config.text;
        let (slots, filling) = match self.form {
            Form::Trt(trt) => (trt.slots, 1e4), // a share of 0 does not hide a NaN
            _ => (slots, f32::NAN),
        };
        let shape = [rows, text.num_kv_heads, slots, text.head_dim];
        let tensor = |_| {
            let mut tensor = Tensor::new(&Allocator::default(), shape).unwrap();
            tensor.extract_tensor_mut().1.fill(filling);
            tensor
        };
        Past {
            tensors: (0..2 * text.num_layers).map(tensor).collect(),
            lengths: vec![0; rows],
            is_in_place: slots > 0,
        }
    }

    /// Reads whole sequences; gives the logits `[V]` of the tokens wanted, one sequence after the other.
    pub(crate) fn prefill(
        &mut self,
        past: &mut Past,
        rows: &[Sequence],
        wanted: &[Vec<usize>],
    ) -> Vec<f32> {
        let ends: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        self.read(past, rows, &ends, wanted)
    }

    /// Reads of each sequence what follows the tokens in the cache, up to `ends`, padded on the right with tokens that
    /// nothing may look at; gives the logits `[V]` of the tokens wanted, one sequence after the other.
    pub(crate) fn read(
        &mut self,
        past: &mut Past,
        rows: &[Sequence],
        ends: &[usize],
        wanted: &[Vec<usize>],
    ) -> Vec<f32> {
        let spans = past.lengths.iter().zip(ends);
        let spans: Vec<Range<usize>> = spans.map(|(&from, &to)| from..to).collect();
        let width = spans.iter().map(Range::len).max().unwrap();
        let hidden = self.config.text.hidden_size;
        let mut pass = Pass::default();
        for (index, (row, span)) in rows.iter().zip(spans).enumerate() {
            let padding = vec![7; width - span.len()];
            let ids = row.ids[span.clone()].iter().map(|&id| i64::from(id));
            pass.ids.extend(ids.chain(padding.iter().copied()));
            for (all, axis) in pass.positions.iter_mut().zip(&row.positions) {
                all.extend(axis[span.clone()].iter().chain(&padding));
            }
            let flat = |column: &usize| (index * width + column - span.start) as i64;
            let embeds = row.image_embeds.chunks_exact(hidden);
            let images = row.image_columns.iter().zip(embeds);
            for (column, embed) in images.filter(|(column, _)| span.contains(column)) {
                pass.image_positions.push(flat(column));
                pass.image_embeds.extend(embed);
            }
            pass.logit_positions.extend(wanted[index].iter().map(flat));
        }
        pass.lengths = ends.to_vec();
        self.run(past, pass)
    }

    /// Decodes greedily, the rows side by side.
    pub(crate) fn greedy(
        &mut self,
        past: &mut Past,
        starts: &[Start],
        steps: usize,
    ) -> Vec<Response> {
        let prompts: Vec<Sequence> = starts.iter().map(|start| start.sequence.clone()).collect();
        let last = |prompt: &Sequence| vec![prompt.ids.len() - 1];
        let wanted: Vec<Vec<usize>> = prompts.iter().map(last).collect();
        let mut logits = self.prefill(past, &prompts, &wanted);
        let mut responses = vec![Response::default(); starts.len()];
        for step in 0..=steps {
            let mut pass = Pass::default();
            let rows = logits.chunks_exact(self.config.text.vocab_size);
            for (row, (logits, start)) in rows.zip(starts).enumerate() {
                let token = argmax(logits);
                responses[row].logits.extend_from_slice(logits);
                responses[row].tokens.push(token);
                pass.ids.push(i64::from(token));
                let position = start.next_position + step as i64;
                pass.positions
                    .iter_mut()
                    .for_each(|axis| axis.push(position));
                pass.logit_positions.push(row as i64);
                pass.lengths.push(start.sequence.ids.len() + step + 1);
            }
            if step < steps {
                logits = self.run(past, pass);
            }
        }
        responses
    }

    /// One run of the decoder.
    fn run(&mut self, past: &mut Past, pass: Pass) -> Vec<f32> {
        let (rows, wanted) = (pass.lengths.len(), pass.logit_positions.len());
        let width = pass.ids.len() / rows;
        let positions = pass.positions.concat();
        let mut io = self.decoder.binding();
        bind(&mut io, "position_ids", [3, rows, width], positions);
        let mut embeds = pass.image_embeds;
        if self.form == Form::Portable {
            let images = pass.image_positions.len();
            bind(&mut io, "image_positions", [images], pass.image_positions);
        } else {
            let mut image_rows = vec![-1_i64; rows * width];
            for (row, &position) in (0..).zip(&pass.image_positions) {
                image_rows[position as usize] = row;
            }
            bind(&mut io, "image_rows", [rows, width], image_rows);
            if embeds.is_empty() {
                embeds = vec![f32::NAN; self.config.text.hidden_size]; // one row at least
            }
        }
        let embeds_shape = [
            embeds.len() / self.config.text.hidden_size,
            self.config.text.hidden_size,
        ];
        bind(&mut io, "image_embeds", embeds_shape, embeds);
        if let Form::Trt(_) = self.form {
            let width = width as i64;
            let slots = past
                .lengths
                .iter()
                .flat_map(|&first| (first as i64..).take(width as usize));
            bind(
                &mut io,
                "token_slots",
                [rows, width as usize],
                slots.collect(),
            );
        } else {
            let last_slots = pass.lengths.iter().map(|&length| length as i32 - 1);
            let longest = *pass.lengths.iter().max().unwrap() as i32;
            bind(&mut io, "seqlens_k", [rows], last_slots.collect());
            bind(&mut io, "total_length", [], vec![longest]);
        }
        let head = self.candidates().map(|candidates| Head {
            candidates: candidates.min(self.config.text.vocab_size),
            chosen: (0..wanted)
                .map(|row| (7 * row) % self.config.text.vocab_size)
                .collect(),
            ..Head::default()
        });
        if let Some(head) = &head {
            head.bind(&mut io, SETTINGS[0]);
        }
        bind(&mut io, "input_ids", [rows, width], pass.ids);
        bind(&mut io, "logit_positions", [wanted], pass.logit_positions);
        want(&mut io, "logits");
        let name = |time: &str, index: usize| {
            let kind = ["key", "value"][index % 2];
            format!("{time}_{kind}.{}", index / 2)
        };
        for (index, tensor) in past.tensors.iter_mut().enumerate() {
            io.bind_input(name("past", index), tensor).unwrap();
            let present = name("present", index);
            if past.is_in_place {
                io.bind_output(present, tensor).unwrap();
            } else {
                want(&mut io, &present);
            }
        }
        let mut outputs = self.decoder.session.run_binding(&io).unwrap();
        if !past.is_in_place {
            for (index, tensor) in past.tensors.iter_mut().enumerate() {
                let present = outputs.remove(name("present", index)).unwrap();
                *tensor = present.downcast().unwrap();
            }
        }
        past.lengths = pass.lengths;
        let logits = values(&outputs["logits"]);
        if let Some(head) = &head {
            head.check(&outputs, &logits, SETTINGS[0]);
        }
        logits
    }

    fn candidates(&self) -> Option<usize> {
        match self.form {
            Form::Portable | Form::Engine => None,
            Form::Trt(trt) => trt.candidates,
            Form::Cuda(cuda) => cuda.candidates,
        }
    }
}

/// Tokens of a row, and the logits that each was chosen by.
#[derive(Clone, Default)]
pub(crate) struct Response {
    pub(crate) tokens: Vec<u32>,
    pub(crate) logits: Vec<f32>,
}

/// Keys and values of all layers: key 0, value 0, key 1, ..., f32 `[B, K, M, D]`.
pub(crate) struct Past {
    tensors: Vec<Tensor<f32>>,
    /// Tokens of each row.
    lengths: Vec<usize>,
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

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}
