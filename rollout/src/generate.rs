//! Second stage: keeps the engine's rows full and its weights fresh.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::{Receiver, Sender, select};
use shared::ids::Ticket;

use crate::channel::{Received, receive, send};
use crate::claim::Prepared;
use crate::emit::Outcome;
use crate::engine::{Engine, EngineSettings, Job};
use crate::group::Finished;
use crate::occupancy::Stage;
use crate::reload::Loaded;
use crate::stats::Counters;

/// Longest sleep without work.
const WAIT: Duration = Duration::from_millis(100);

/// The engine with what feeds it.
pub struct Generator<'a> {
    /// How to generate.
    pub settings: EngineSettings,
    /// Responses per prompt, G.
    pub group_size: usize,
    /// Whether weights may change while a group is under way.
    pub may_be_stale: bool,
    /// Prompts.
    pub prepared: Receiver<Prepared>,
    /// New weights.
    pub models: Receiver<Loaded>,
    /// Finished groups.
    pub outcomes: Sender<Outcome>,
    /// The announcement whose weights are in use.
    pub loaded: &'a AtomicU64,
    /// What was done.
    pub counters: &'a Counters,
}

impl Generator<'_> {
    /// Works until told to stop, or until the stage before it is gone.
    ///
    /// # Errors
    /// The engine's.
    pub fn run(self, is_stopping: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        let Some(first) = self.first_model(is_stopping) else {
            return Ok(());
        };
        self.loaded.store(first.publication, Ordering::Release);
        let mut engine = Engine::new(self.settings.clone(), first.model, first.version)?;
        let mut under_way: HashMap<Ticket, Prepared> = HashMap::new();
        let mut next_prompt: Option<Prepared> = None;
        let mut next_model: Option<Loaded> = None;
        let never = crossbeam_channel::never();
        let clocks = &self.counters.clocks;
        while !is_stopping() {
            // Weights: at once, or between groups when each must come from one version.
            next_model = self.models.try_iter().last().or(next_model);
            if (engine.is_idle() || self.may_be_stale)
                && let Some(new) = next_model.take()
            {
                engine.set_model(new.model, new.version);
                self.loaded.store(new.publication, Ordering::Release);
            }
            // Prompts: as many as have free rows.
            while engine.has_room() {
                let Some(prompt) = next_prompt.take().or_else(|| self.prepared.try_recv().ok())
                else {
                    break;
                };
                if prompt.publication > self.loaded.load(Ordering::Acquire) {
                    next_prompt = Some(prompt);
                    break;
                }
                engine.submit(self.job(&prompt))?;
                under_way.insert(prompt.ticket, prompt);
            }
            if engine.is_idle() {
                // Two sources, and one prompt that may be waiting for the other.
                let is_over = clocks.waiting(Stage::Generate, || {
                    select! {
                        recv(self.models) -> new => new.map(|new| next_model = Some(new)),
                        recv(if next_prompt.is_none() { &self.prepared } else { &never }) -> new => {
                            new.map(|prompt| next_prompt = Some(prompt))
                        },
                        default(WAIT) => Ok(()),
                    }
                }).is_err();
                if is_over {
                    return Ok(());
                }
                continue;
            }
            self.step(&mut engine)?;
            for group in engine.take_finished() {
                let Some(prepared) = under_way.remove(&group.ticket) else {
                    continue;
                };
                let finished = Finished {
                    prepared,
                    responses: group.responses,
                    counted: self.counters.now(),
                };
                let outcome = Outcome::Finished(Box::new(finished));
                if !clocks.blocked(Stage::Generate, || {
                    send(&self.outcomes, outcome, is_stopping)
                }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn step(&self, engine: &mut Engine) -> Result<()> {
        let (start, tokens) = (Instant::now(), engine.num_tokens());
        engine.step()?;
        self.counters.add_step(
            start.elapsed(),
            engine.num_tokens() - tokens,
            engine.spent(),
        );
        Ok(())
    }

    fn first_model(&self, is_stopping: &dyn Fn() -> bool) -> Option<Loaded> {
        while !is_stopping() {
            match self
                .counters
                .clocks
                .waiting(Stage::Generate, || receive(&self.models))
            {
                Received::Message(loaded) => return Some(loaded),
                Received::Closed => return None,
                Received::Nothing => {}
            }
        }
        None
    }

    fn job(&self, prompt: &Prepared) -> Job {
        Job {
            ticket: prompt.ticket,
            group_size: self.group_size,
            prompt: prompt.prompt.inputs.clone(),
            blank: prompt.prompt.blank_inputs.clone(),
        }
    }
}
