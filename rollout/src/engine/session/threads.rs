//! The engine's threads: how many, on which cores, and at what priority.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use ort::environment::ThreadManager;
use rustix::thread::CpuSet;

/// How far below the engine's the priority of a thread is that makes new weights ready while the engine decodes. On a full
/// machine it gets about a third of a core's time: a step then takes less than twice as long.
const BACKGROUND_NICE: i32 = 7;

/// The compute threads of a session.
#[derive(Debug, Clone, Copy)]
pub struct Threads {
    /// How many, the calling one included.
    pub count: usize,
    /// The cores on which each of them stays by itself; none where they may wander.
    pinned_to: Option<CpuSet>,
}

impl Threads {
    /// `count` = none or 0 means all cores that the process may use.
    #[must_use]
    pub fn new(count: Option<usize>, is_pinned: bool) -> Self {
        let count = count.filter(|count| *count > 0);
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        // Asked for now: a thread that is pinned already may use no more than its own core.
        let allowed = || {
            let allowed = rustix::thread::sched_getaffinity(None);
            allowed
                .inspect_err(|error| tracing::warn!("--pin-threads: {error}"))
                .ok()
        };
        Self {
            count: count.unwrap_or_else(all),
            pinned_to: is_pinned.then(allowed).flatten(),
        }
    }

    /// Pins the calling thread, which runs the sessions, if that was asked for.
    pub fn pin_caller(&self) {
        if self.pinned_to.is_some() {
            rayon::current_num_threads(); // started now, the sampler's threads inherit no pin
            self.pin(0);
        }
    }

    /// Pins the calling thread as the `index`-th. Where there are fewer cores it shares one.
    fn pin(&self, index: usize) {
        let Some(allowed) = &self.pinned_to else {
            return;
        };
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|&core| allowed.is_set(core))
            .collect();
        let Some(&core) = cores.get(index % cores.len().max(1)) else {
            return;
        };
        let mut own = CpuSet::new();
        own.set(core);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &own) {
            tracing::warn!("--pin-threads: {error}");
        }
    }
}

/// A thread's work.
type Work = Box<dyn FnOnce() + Send>;

/// Starts threads of the priority and on the cores that the process had when this was made: a thread inherits both from the
/// one that starts it, and may be started by one that runs in the background.
#[derive(Debug, Clone)]
pub(super) struct Spawner {
    requests: Sender<(Work, Sender<std::io::Result<JoinHandle<()>>>)>,
}

impl Spawner {
    pub(super) fn new() -> std::io::Result<Self> {
        let (requests, waiting) = bounded::<(Work, Sender<_>)>(0);
        let spawn = move || {
            for (work, reply) in waiting {
                // Nobody to tell means nobody to join it.
                let _ = reply.send(
                    std::thread::Builder::new()
                        .name("engine".to_owned())
                        .spawn(work),
                );
            }
        };
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(spawn)?;
        Ok(Self { requests })
    }

    pub(super) fn spawn(&self, work: Work) -> ort::Result<JoinHandle<()>> {
        let (reply, made) = bounded(1);
        let sent = self.requests.send((work, reply)).ok();
        match sent.and_then(|()| made.recv().ok()) {
            Some(made) => made.map_err(|error| ort::Error::new(format!("no thread: {error}"))),
            None => Err(ort::Error::new(
                "no thread: the one that starts them is gone",
            )),
        }
    }
}

/// Until it is open the threads of a session sleep: ONNX Runtime's spin from their first moment on, on cores that the
/// weights in use need.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<OnceLock<()>>);

impl Gate {
    /// Lets the threads run.
    pub(super) fn open(&self) {
        self.0.get_or_init(|| ());
    }
}

/// The threads of one session but the calling one.
#[derive(Debug)]
pub(super) struct Pool {
    spawner: Spawner,
    threads: Threads,
    gate: Gate,
    started: AtomicUsize,
}

impl Pool {
    pub(super) fn new(spawner: &Spawner, threads: Threads, gate: &Gate) -> Self {
        Self {
            spawner: spawner.clone(),
            threads,
            gate: gate.clone(),
            started: AtomicUsize::new(0),
        }
    }
}

/// A thread, and what may still hold it.
#[derive(Debug)]
pub(super) struct Member {
    thread: JoinHandle<()>,
    gate: Gate,
}

impl ThreadManager for Pool {
    type Thread = Member;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<Self::Thread> {
        let index = 1 + self.started.fetch_add(1, Ordering::Relaxed);
        let (threads, gate) = (self.threads, self.gate.clone());
        let thread = self.spawner.spawn(Box::new(move || {
            threads.pin(index);
            gate.0.wait();
            work();
        }))?;
        let gate = self.gate.clone();
        Ok(Member { thread, gate })
    }

    fn join(Member { thread, gate }: Member) -> ort::Result<()> {
        gate.open(); // a session that never ran
        thread
            .join()
            .map_err(|_| ort::Error::new("a thread of the engine panicked"))
    }
}

/// Lowers the priority of the calling thread.
pub(super) fn step_back() {
    // Where that is forbidden it runs like any other thread: slower steps meanwhile, nothing else.
    if let Err(error) = rustix::process::nice(BACKGROUND_NICE) {
        tracing::debug!("the priority of a thread stays: {error}");
    }
    yield_on_waking();
}

/// Lets the calling thread wait for its turn when it wakes up, rather than take another's core at once: it sleeps at every
/// page of a file that is not there yet.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the scheduler is set through its C interface")]
fn yield_on_waking() {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: a setting of the calling thread (0), of which the call reads `none` alone.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const none) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!("the scheduling of a thread stays: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn yield_on_waking() {}

/// Runs `work` on a thread of lower priority, its parallel parts too, and waits for it.
pub(super) fn in_background<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .thread_name(|_| "background".to_owned())
        .start_handler(|_| step_back())
        .build();
    Ok(pool.map_err(std::io::Error::other)?.install(work))
}
