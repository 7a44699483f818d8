//! SIGINT and SIGTERM: the first one asks for an orderly end, the second one ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a program that was interrupted at once.
const INTERRUPTED: i32 = 130;

/// A flag that is raised once and stays up. Cheap to share.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Raised by the first SIGINT or SIGTERM; `stopping` says in the log what happens then.
    ///
    /// # Errors
    /// When the system refuses signal handlers or the thread that waits for them.
    pub fn on_signals(stopping: &'static str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot watch for signals")?;
        let (interrupt, terminate) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        let stop = Self::default();
        let raised = stop.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(raised.follow(interrupt, terminate, stopping)))?;
        Ok(stop)
    }

    /// Raises the flag.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it is up.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    async fn follow(&self, mut interrupt: Signal, mut terminate: Signal, stopping: &str) {
        either(&mut interrupt, &mut terminate).await;
        self.raise();
        tracing::info!("{stopping}; once more to stop at once");
        either(&mut interrupt, &mut terminate).await;
        std::process::exit(INTERRUPTED);
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
