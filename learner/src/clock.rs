//! A stopwatch.

use std::time::Instant;

/// Seconds since the last lap and since the start.
pub(crate) struct Clock {
    start: Instant,
    lap: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            lap: now,
        }
    }

    pub(crate) fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = now.duration_since(self.lap).as_secs_f64();
        self.lap = now;
        seconds
    }

    pub(crate) fn total(&self) -> f64 {
        self.lap.duration_since(self.start).as_secs_f64()
    }
}
