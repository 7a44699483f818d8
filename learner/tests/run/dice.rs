//! A rollout made of dice: random responses and rewards that depend on the ticket alone, logprobs by the published weights.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use learner::batch::Batch;
use learner::model::Model;
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::image::ImageProcessor;
use shared::codec;
use shared::control::Seat;
use shared::ids::{PolicyVersion, Ticket};
use shared::record::{FinishReason, GroupRecord, ImageRecord, Precision, ResponseRecord, Reward};
use shared::ring::Producer;
use shared::weights;
use tch::Device;
use tests::{Fixtures, PromptCase};

const GROUP_SIZE: u64 = 4;

/// How a rollout spends its time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shift {
    /// Works until it is dropped.
    Endless,
    /// The same, with logprobs made of dice too: nothing need be published for it.
    WithoutModel,
    /// Works off so many tickets, claims one more, and hands its record in only when the next learner has come.
    Short(u32),
}

/// A rollout process's place in a run, as a thread of the test.
pub(crate) struct DiceRollout {
    stop: Arc<AtomicBool>,
    is_quiet: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DiceRollout {
    pub(crate) fn start(run_dir: &Path, shift: Shift) -> Self {
        Self::spoiling(run_dir, shift, |_| ())
    }

    /// One whose records are changed on their way.
    pub(crate) fn spoiling(run_dir: &Path, shift: Shift, spoil: fn(&mut GroupRecord)) -> Self {
        let (stop, is_quiet) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (run_dir, stopping, quiet) = (run_dir.to_owned(), stop.clone(), is_quiet.clone());
        let thread = Some(spawn(move || {
            let stop = || stopping.load(Ordering::SeqCst);
            roll(&run_dir, shift, spoil, &quiet, &stop);
        }));
        Self {
            stop,
            is_quiet,
            thread,
        }
    }

    /// Whether a short shift is over, but for the ticket that it holds (or could not get).
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::SeqCst)
    }

    /// Waits until a short shift has ended by itself.
    pub(crate) fn join(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for DiceRollout {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else {
            return;
        };
        let panicked = thread.join().is_err();
        assert!(
            !panicked || std::thread::panicking(),
            "the rollout panicked"
        );
    }
}

fn roll(
    run_dir: &Path,
    shift: Shift,
    spoil: fn(&mut GroupRecord),
    quiet: &AtomicBool,
    stop: &dyn Fn() -> bool,
) {
    let dice = Dice::open();
    let Some(seat) = Seat::join(run_dir, stop, &mut |_| ()).unwrap() else {
        return;
    };
    let learner = seat.learner_generation();
    let is_over = || stop() || seat.stopping() || seat.learner_generation() != learner;
    let mut ring = Producer::open_or_create(&seat.ring_path(), 1 << 20).unwrap();
    let mut loaded: Option<(u64, Model)> = None;
    let mut done = 0;
    let mut num_idle = 0;
    while !stop() {
        let is_last = matches!(shift, Shift::Short(count) if done >= count);
        if is_last && is_over() {
            return;
        }
        let Some(ticket) = seat.claim() else {
            seat.wait_work(Duration::from_millis(50)).unwrap();
            num_idle += 1;
            quiet.store(is_last && num_idle > 10, Ordering::SeqCst);
            continue;
        };
        let publications = seat.publications();
        let version = seat.version().unwrap();
        let is_loaded = loaded
            .as_ref()
            .is_some_and(|(known, _)| *known == publications);
        let has_model = shift != Shift::WithoutModel;
        if !is_loaded && has_model {
            loaded = Some((publications, dice.load(run_dir, version)));
        }
        let mut record = dice.record(ticket, version);
        if let Some((_, model)) = &loaded {
            record = dice.with_logprobs(record, model);
        }
        spoil(&mut record);
        if is_last {
            quiet.store(true, Ordering::SeqCst);
            while !is_over() {
                sleep(Duration::from_millis(10));
            }
        }
        if ring.push(&codec::encode(&record), stop).unwrap() {
            seat.finish(ticket);
        }
        if is_last {
            return;
        }
        (done, num_idle) = (done + 1, 0);
    }
}

/// Records made of dice.
pub(crate) struct Dice {
    pub(crate) config: ModelConfig,
    pub(crate) images: ImageProcessor,
    prompts: Vec<PromptCase>,
    pixels: Vec<Vec<ImageRecord>>,
}

impl Dice {
    pub(crate) fn open() -> Self {
        let fixtures = Fixtures::open().unwrap();
        let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
        let preprocess = fixtures.tensors("preprocess").unwrap();
        let image = |name: &String| {
            let resized = preprocess.u8(&format!("pil.{name}.resized_u8")).unwrap();
            let side = |axis: usize| u32::try_from(resized.shape[axis]).unwrap();
            ImageRecord {
                width: side(1),
                height: side(0),
                pixels: resized.data.clone(),
            }
        };
        let prompts = fixtures.prompts().unwrap();
        Self {
            images: ImageProcessor::from_dir(&fixtures.model(), &config.vision).unwrap(),
            pixels: prompts
                .iter()
                .map(|prompt| prompt.images.iter().map(image).collect())
                .collect(),
            config,
            prompts,
        }
    }

    fn load(&self, run_dir: &Path, version: PolicyVersion) -> Model {
        let checkpoint = Checkpoint::open(&weights::path(run_dir, version)).unwrap();
        Model::load(&self.config, &checkpoint, Device::Cpu).unwrap()
    }

    /// Everything but the versions follows from the ticket.
    pub(crate) fn record(&self, ticket: Ticket, version: PolicyVersion) -> GroupRecord {
        let index = usize::try_from(ticket.0).unwrap() % self.prompts.len();
        GroupRecord {
            ticket,
            sample_id: self.prompts[index].name.clone(),
            prompt_ids: self.prompts[index].input_ids.clone(),
            images: self.pixels[index].clone(),
            temperature: 0.9,
            precision: Precision::F32,
            greedy_reward: Some(reward(hash(ticket.0).is_multiple_of(2))),
            responses: (0..GROUP_SIZE)
                .map(|response| response_of(ticket, response, version))
                .collect(),
        }
    }

    /// The same with the logprobs of a model.
    pub(crate) fn with_logprobs(&self, mut record: GroupRecord, model: &Model) -> GroupRecord {
        let batch = Batch::new(vec![record.clone()]);
        let micro_batch = batch.micro_batches(0..1, usize::MAX, |_| true).remove(0);
        let patches = batch.patches(&micro_batch, &self.images).unwrap();
        let input = batch.input(&micro_batch, &patches);
        let (logprobs, _) =
            learner::logprobs::logprobs(model, &input, f64::from(record.temperature)).unwrap();
        let logprobs: Vec<f32> = logprobs.try_into().unwrap();
        for (response, flat) in record.responses.iter_mut().zip(&batch.responses) {
            response.logprobs = logprobs[flat.tokens.clone()].to_vec();
        }
        record
    }
}

/// A group of every third ticket teaches nothing: dynamic sampling has something to do.
pub(crate) fn teaches(ticket: Ticket) -> bool {
    let right = (0..GROUP_SIZE)
        .filter(|&response| is_right(ticket, response))
        .count();
    right > 0 && right < usize::try_from(GROUP_SIZE).unwrap()
}

fn is_right(ticket: Ticket, response: u64) -> bool {
    !hash(ticket.0).is_multiple_of(3) && hash(ticket.0 * GROUP_SIZE + response).is_multiple_of(2)
}

fn reward(is_right: bool) -> Reward {
    let accuracy = if is_right { 1.0 } else { 0.0 };
    Reward {
        total: accuracy,
        accuracy,
        format: 0.0,
        overlong: 0.0,
    }
}

fn response_of(ticket: Ticket, response: u64, version: PolicyVersion) -> ResponseRecord {
    let seed = hash(ticket.0 * GROUP_SIZE + response);
    let len = 2 + seed % 7;
    let values = |stream: u64| -> Vec<f32> {
        (0..len)
            .map(|t| unit(hash(seed ^ stream ^ t << 8)))
            .collect()
    };
    // Plain text tokens: nothing above is an image pad.
    let token_ids = (0..len)
        .map(|t| u32::try_from(hash(seed + t) % 200).unwrap())
        .collect();
    ResponseRecord {
        token_ids,
        finish_reason: FinishReason::Stop,
        first_version: version,
        last_version: version,
        reward: reward(is_right(ticket, response)),
        logprobs: values(0).iter().map(|value| -5.0 * value).collect(),
        blank_logprobs: values(1).iter().map(|value| -8.0 * value).collect(),
        entropies: values(2)
            .iter()
            .map(|value| (value - 0.5).max(0.0))
            .collect(),
        blank_entropies: values(3),
    }
}

pub(crate) fn hash(value: u64) -> u64 {
    let value = (value ^ (value >> 30))
        .wrapping_add(0x9E37_79B9_7F4A_7C15)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

fn unit(value: u64) -> f32 {
    f32::from(u16::try_from(value >> 48).unwrap()) / 65536.0
}
