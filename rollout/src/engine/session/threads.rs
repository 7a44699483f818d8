//! The engine's threads: how many, on which cores, and at what priority.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use ort::environment::ThreadManager;
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};

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
            let allowed = sched_getaffinity(None);
            allowed
                .inspect_err(|error| tracing::warn!("--pin-threads: {error}"))
                .ok()
        };
        Self {
            count: count.unwrap_or_else(all),
            pinned_to: is_pinned.then(allowed).flatten(),
        }
    }

    /// Counts the calling thread, which runs the sessions, among the compute threads for as long as the result lives, and
    /// pins it if that was asked for.
    #[must_use]
    pub fn enlist_caller(&self) -> Enlisted {
        rayon::current_num_threads(); // started now, the sampler's threads inherit no pin
        self.enlist(0)
    }

    /// The calling thread is the `index`-th of a session.
    fn enlist(&self, index: usize) -> Enlisted {
        if let Some(allowed) = &self.pinned_to
            && let Err(error) = pin(None, index, allowed)
        {
            tracing::warn!("--pin-threads: {error}");
        }
        Enlisted::new(index)
    }

    /// Keeps the compute threads apart, a core for each, until the result is dropped. For while other threads of this process
    /// take the cores as well: on a full machine the scheduler then puts two compute threads on one core for a tenth of a
    /// second, and steps take three times as long. Fewer threads than cores stay free: the scheduler has room to move them.
    pub(super) fn hold_apart(&self) -> HeldApart {
        let mut freed = Vec::new();
        if self.pinned_to.is_none() {
            for &(thread, index) in computing().iter() {
                // Whatever is forbidden here costs speed and nothing else.
                if let Ok(allowed) = sched_getaffinity(Some(thread))
                    && cores(&allowed).count() == self.count
                    && pin(Some(thread), index, &allowed).is_ok()
                {
                    freed.push((thread, allowed));
                }
            }
        }
        HeldApart { freed }
    }
}

/// The compute threads of this process that live, each with its place in its session.
fn computing() -> std::sync::MutexGuard<'static, Vec<(Pid, usize)>> {
    static COMPUTING: Mutex<Vec<(Pid, usize)>> = Mutex::new(Vec::new());
    COMPUTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of the thread that made it: it is a compute thread while this lives.
#[derive(Debug)]
pub struct Enlisted {
    thread: Pid,
}

impl Enlisted {
    fn new(index: usize) -> Self {
        let thread = gettid();
        computing().push((thread, index));
        Self { thread }
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        let mut computing = computing();
        if let Some(place) = computing.iter().position(|&(pid, _)| pid == self.thread) {
            computing.swap_remove(place);
        }
    }
}

/// Compute threads that are kept apart, and the cores that each may use otherwise.
#[derive(Debug)]
pub(super) struct HeldApart {
    freed: Vec<(Pid, CpuSet)>,
}

impl Drop for HeldApart {
    fn drop(&mut self) {
        // Listed means alive: the number of a thread that ended may be another's by now.
        let computing = computing();
        for (thread, allowed) in &self.freed {
            if computing.iter().any(|(pid, _)| pid == thread)
                && let Err(error) = sched_setaffinity(Some(*thread), allowed)
            {
                tracing::debug!("a thread stays on its core: {error}");
            }
        }
    }
}

/// The cores of a set, by number.
fn cores(set: &CpuSet) -> impl Iterator<Item = usize> {
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core))
}

/// Puts a thread, the calling one if none is named, on the `index`-th of the `allowed` cores. Where there are fewer it
/// shares one.
fn pin(thread: Option<Pid>, index: usize, allowed: &CpuSet) -> rustix::io::Result<()> {
    let mut own = CpuSet::new();
    if let Some(core) = cores(allowed).nth(index % cores(allowed).count().max(1)) {
        own.set(core);
    }
    sched_setaffinity(thread, &own)
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
            let _enlisted = threads.enlist(index);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(thread: Pid) -> Vec<usize> {
        cores(&sched_getaffinity(Some(thread)).unwrap()).collect()
    }

    #[test]
    fn compute_threads_are_held_on_a_core_each_and_let_go() {
        let all: Vec<usize> = cores(&sched_getaffinity(None).unwrap()).collect();
        let threads = Threads::new(Some(all.len()), false);
        // One stays a compute thread; one lives on and is none any more, as if its number were another's by now.
        let (leave, left) = bounded::<()>(0);
        let start = |keeps: bool, left: crossbeam_channel::Receiver<()>| {
            let (enlisted, is_enlisted) = bounded(1);
            let (end, ended) = bounded::<()>(0);
            let thread = std::thread::spawn(move || {
                let mut own = Some(threads.enlist(1));
                enlisted.send(gettid()).unwrap();
                if !keeps {
                    left.recv().unwrap();
                    own = None;
                    left.recv().unwrap();
                }
                let _ = ended.recv();
                drop(own);
            });
            (is_enlisted.recv().unwrap(), end, thread)
        };
        let (stays, end_stays, first) = start(true, left.clone());
        let (goes, end_goes, second) = start(false, left);
        let held = threads.hold_apart();
        let own = vec![all[1 % all.len()]];
        assert_eq!([allowed(stays), allowed(goes)], [own.clone(), own.clone()]);
        leave.send(()).unwrap();
        leave.send(()).unwrap(); // it is none any more
        drop(held);
        assert_eq!([allowed(stays), allowed(goes)], [all, own]);
        drop((end_stays, end_goes));
        first.join().unwrap();
        second.join().unwrap();
    }
}
