//! A rollout made of dice: random responses and rewards that depend on the ticket alone, logprobs by the published weights.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
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

/// A rollout process's place in a run, as a thread of the test.
pub(crate) struct DiceRollout {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DiceRollout {
    pub(crate) fn start(run_dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (run_dir, stopping) = (run_dir.to_owned(), Arc::clone(&stop));
        let thread = Some(spawn(move || {
            roll(&run_dir, &|| stopping.load(Ordering::SeqCst));
        }));
        Self { stop, thread }
    }
}

impl Drop for DiceRollout {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let panicked = self.thread.take().unwrap().join().is_err();
        assert!(
            !panicked || std::thread::panicking(),
            "the rollout panicked"
        );
    }
}

fn roll(run_dir: &Path, stop: &dyn Fn() -> bool) {
    let dice = Dice::open();
    let Some(seat) = Seat::join(run_dir, stop, &mut |_| ()).unwrap() else {
        return;
    };
    let mut ring = Producer::open_or_create(&seat.ring_path(), 1 << 20).unwrap();
    let mut loaded: Option<(u64, Model)> = None;
    while !stop() {
        let Some(ticket) = seat.claim() else {
            seat.wait_work(Duration::from_millis(50)).unwrap();
            continue;
        };
        let publications = seat.publications();
        let version = seat.version().unwrap();
        if loaded
            .as_ref()
            .is_none_or(|(known, _)| *known != publications)
        {
            loaded = Some((publications, dice.load(run_dir, version)));
        }
        let record = dice.record(ticket, version, &loaded.as_ref().unwrap().1);
        if ring.push(&codec::encode(&record), stop).unwrap() {
            seat.finish(ticket);
        }
    }
}

struct Dice {
    config: ModelConfig,
    images: ImageProcessor,
    prompts: Vec<PromptCase>,
    pixels: Vec<Vec<ImageRecord>>,
}

impl Dice {
    fn open() -> Self {
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

    /// Everything but versions and logprobs follows from the ticket.
    fn record(&self, ticket: Ticket, version: PolicyVersion, model: &Model) -> GroupRecord {
        let index = usize::try_from(ticket.0).unwrap() % self.prompts.len();
        let record = GroupRecord {
            ticket,
            sample_id: self.prompts[index].name.clone(),
            prompt_ids: self.prompts[index].input_ids.clone(),
            images: self.pixels[index].clone(),
            temperature: 0.9,
            precision: Precision::F32,
            responses: (0..GROUP_SIZE)
                .map(|response| self.response(hash(ticket.0 * GROUP_SIZE + response), version))
                .collect(),
        };
        self.with_logprobs(record, model)
    }

    fn response(&self, seed: u64, version: PolicyVersion) -> ResponseRecord {
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
        let accuracy = if hash(seed).is_multiple_of(2) {
            1.0
        } else {
            0.0
        };
        ResponseRecord {
            token_ids,
            finish_reason: FinishReason::Stop,
            first_version: version,
            last_version: version,
            reward: Reward {
                total: accuracy,
                accuracy,
                format: 0.0,
                overlong: 0.0,
            },
            logprobs: values(0),
            blank_logprobs: values(1).iter().map(|value| -8.0 * value).collect(),
            entropies: values(2)
                .iter()
                .map(|value| (value - 0.5).max(0.0))
                .collect(),
            blank_entropies: values(3),
        }
    }

    fn with_logprobs(&self, mut record: GroupRecord, model: &Model) -> GroupRecord {
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

fn hash(value: u64) -> u64 {
    let value = (value ^ (value >> 30))
        .wrapping_add(0x9E37_79B9_7F4A_7C15)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

fn unit(value: u64) -> f32 {
    f32::from(u16::try_from(value >> 48).unwrap()) / 65536.0
}
