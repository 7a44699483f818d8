//! SIGINT and SIGTERM: the first one asks the run to end after this step, the second one ends it.
#![allow(unsafe_code, reason = "a process that ends at once")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a program that was interrupted at once.
const INTERRUPTED: i32 = 130;

/// Starts watching. The flag goes up with the first signal.
pub fn watch() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot watch for signals")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let raised = Arc::clone(&flag);
    let watch = move || runtime.block_on(follow(&mut interrupt, &mut terminate, &raised));
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)?;
    Ok(flag)
}

async fn follow(interrupt: &mut Signal, terminate: &mut Signal, raised: &AtomicBool) {
    either(interrupt, terminate).await;
    raised.store(true, Ordering::SeqCst);
    tracing::info!("finishing this step, then saving; once more to stop at once");
    either(interrupt, terminate).await;
    // At once: `exit` would take libtorch's tables down under a thread that computes.
    // SAFETY: it ends the process and runs nothing.
    unsafe { libc::_exit(INTERRUPTED) }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
