//! Bounded channels whose ends can be told to stop.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

/// How often a stage that waits asks whether to stop.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Sends, waiting for room. False when told to stop, or when the other end is gone.
pub fn send<T>(sender: &Sender<T>, message: T, is_stopping: &dyn Fn() -> bool) -> bool {
    let mut message = message;
    loop {
        match sender.send_timeout(message, ASK_EVERY) {
            Ok(()) => return true,
            Err(SendTimeoutError::Disconnected(_)) => return false,
            Err(SendTimeoutError::Timeout(_)) if is_stopping() => return false,
            Err(SendTimeoutError::Timeout(back)) => message = back,
        }
    }
}

/// What [`receive`] found.
#[derive(Debug)]
pub enum Received<T> {
    /// A message.
    Message(T),
    /// Nothing for a while.
    Nothing,
    /// The other end is gone and everything it sent has been received.
    Closed,
}

/// Receives, waiting a short while.
pub fn receive<T>(receiver: &Receiver<T>) -> Received<T> {
    match receiver.recv_timeout(ASK_EVERY) {
        Ok(message) => Received::Message(message),
        Err(RecvTimeoutError::Timeout) => Received::Nothing,
        Err(RecvTimeoutError::Disconnected) => Received::Closed,
    }
}
