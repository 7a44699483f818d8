//! Follows the learner's publications: the next weights are made ready while the engine still decodes with the old ones.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender};
use shared::control::Seat;
use shared::ids::PolicyVersion;
use shared::weights;

use crate::channel::send;
use crate::engine::{Haste, ReadyWeights};
use crate::load::ModelLoader;
use crate::occupancy::{Stage, StageClocks};

/// Longest time between two looks at the control page.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Weights ready to run.
#[derive(Debug)]
pub struct Loaded {
    /// As the engine takes them up.
    pub weights: ReadyWeights,
    /// What the learner calls them.
    pub version: PolicyVersion,
    /// The announcement that they came with. A restarted learner may announce a version again.
    pub publication: u64,
}

/// Loads each announced version and hands it over; versions that were overtaken meanwhile are left out.
/// `wake` rings when the learner did something.
///
/// # Errors
/// Weights that do not load although they are the newest.
pub fn follow(
    seat: &Seat,
    run_dir: &Path,
    loader: &mut ModelLoader,
    wake: &Receiver<()>,
    loaded: &Sender<Loaded>,
    clocks: &StageClocks,
    is_stopping: &(dyn Fn() -> bool + Sync),
) -> Result<()> {
    let mut known = None;
    while !is_stopping() {
        let publication = seat.publications(); // before the version
        let Some(version) = seat.version().filter(|_| known != Some(publication)) else {
            // Woken or not, the next look tells.
            let _ = clocks.waiting(Stage::Reload, || wake.recv_timeout(LOOK_EVERY));
            continue;
        };
        let start = Instant::now();
        // An engine that waits, mostly for these weights, leaves its cores to them.
        let haste = if clocks.is_waiting(Stage::Generate) {
            Haste::Now
        } else {
            Haste::Background
        };
        match loader.load(&weights::path(run_dir, version), haste) {
            Ok(ready) => {
                tracing::debug!(
                    "weights {version} loaded in {} ms",
                    start.elapsed().as_millis()
                );
                known = Some(publication);
                let new = Loaded {
                    weights: ready,
                    version,
                    publication,
                };
                if !clocks.blocked(Stage::Reload, || send(loaded, new, is_stopping)) {
                    break;
                }
            }
            // Replaced by newer ones and removed while they were being read.
            Err(_) if seat.publications() != publication => {}
            Err(error) => return Err(error).context(format!("weights {version}")),
        }
    }
    Ok(())
}
