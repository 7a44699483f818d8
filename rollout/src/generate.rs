//! Second stage: keeps the engine's rows full and its weights fresh, and validates them when the learner asks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use crossbeam_channel::{Receiver, Sender, select};
use shared::config::{NewWeights, RunConfig};
use shared::control::Seat;
use shared::ids::Ticket;

use crate::channel::{Received, receive, send};
use crate::claim::Prepared;
use crate::emit::Outcome;
use crate::engine::{Engine, EngineSettings, Job, Threads};
use crate::eval::validation::{NO_DATA, Validator};
use crate::group::Finished;
use crate::occupancy::Stage;
use crate::reload::Loaded;
use crate::stats::Counters;

/// Longest sleep without work.
const WAIT: Duration = Duration::from_millis(100);

/// The engine with what feeds it.
pub struct Generator<'a> {
    /// The place in the run.
    pub seat: &'a Seat,
    /// How to generate.
    pub settings: EngineSettings,
    /// How to validate.
    pub validator: Option<Validator>,
    /// Responses per prompt, G.
    pub group_size: usize,
    /// The compute threads, of which the generator's own is one.
    pub threads: Threads,
    /// When new weights are taken.
    pub when: TakeWeights,
    /// Prompts.
    pub prepared: Receiver<Prepared>,
    /// New weights.
    pub models: Receiver<Loaded>,
    /// Finished groups.
    pub outcomes: Sender<Outcome>,
    /// The announcement whose weights are in use.
    pub loaded: &'a AtomicU64,
    /// Whether a validation has the engine, or will have it as soon as the groups under way are finished.
    pub is_validating: &'a AtomicBool,
    /// What was done.
    pub counters: &'a Counters,
}

/// When weights that are ready replace those in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeWeights {
    /// Between groups: every group comes from one version.
    BetweenGroups,
    /// At once: responses under way continue on them.
    AtOnce,
    /// When the groups under way are finished, for which they get so many steps; no group starts meanwhile.
    AfterGroups {
        /// At least 1.
        max_steps: usize,
    },
}

impl From<&RunConfig> for TakeWeights {
    fn from(config: &RunConfig) -> Self {
        if config.learner.max_staleness == 0 {
            return Self::BetweenGroups;
        }
        match config.rollout.new_weights {
            NewWeights::Continue => Self::AtOnce,
            NewWeights::Finish => Self::AfterGroups {
                max_steps: config.rollout.finish_steps,
            },
        }
    }
}

impl TakeWeights {
    /// Whether weights that have waited for `steps` are taken while groups are under way.
    fn is_due(self, steps: usize) -> bool {
        match self {
            Self::BetweenGroups => false,
            Self::AtOnce => true,
            Self::AfterGroups { max_steps } => steps >= max_steps,
        }
    }

    /// Whether new groups must wait as well while weights wait.
    fn holds_groups(self) -> bool {
        matches!(self, Self::AfterGroups { .. })
    }
}

impl Generator<'_> {
    /// Works until told to stop, or until the stage before it is gone.
    ///
    /// # Errors
    /// The engine's.
    pub fn run(self, is_stopping: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        let _enlisted = self.threads.enlist_caller();
        let Some(first) = self.first_model(is_stopping) else {
            return Ok(());
        };
        let mut publication = first.publication;
        let mut engine = Engine::new(self.settings.clone(), first.weights, first.version)?;
        let mut under_way: HashMap<Ticket, Prepared> = HashMap::new();
        let mut next_prompt: Option<Prepared> = None;
        let mut next_model: Option<Loaded> = None;
        let mut steps_waited = 0; // by the first of the weights that wait
        let never = crossbeam_channel::never();
        let clocks = &self.counters.clocks;
        let mut validates = false;
        while !is_stopping() {
            next_model = self.models.try_iter().last().or(next_model);
            if !validates
                && (engine.is_idle() || self.when.is_due(steps_waited))
                && let Some(new) = next_model.take()
            {
                engine.set_weights(new.weights, new.version)?;
                steps_waited = 0;
                publication = new.publication;
            }
            validates = validates || self.takes_validation(publication)?;
            self.loaded.store(publication, Ordering::Release);
            if validates && engine.is_idle() {
                if !self.validate(&mut engine, publication, is_stopping)? {
                    return Ok(());
                }
                validates = false;
                continue;
            }
            // Prompts: as many as have free rows.
            let is_held = validates || (next_model.is_some() && self.when.holds_groups());
            while !is_held && engine.has_room() {
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
                engine.retire_replaced();
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
            steps_waited += usize::from(next_model.is_some());
            for group in engine.take_finished() {
                let Some(prepared) = under_way.remove(&group.ticket) else {
                    continue;
                };
                let finished = Finished {
                    prepared,
                    responses: group.responses,
                    greedy: group.greedy,
                    device_precision: engine.device_precision(),
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

    /// Whether these weights are to be validated here: no group begins until that is done, and no other weights are taken.
    fn takes_validation(&self, publication: u64) -> Result<bool> {
        if self.validator.is_none() {
            if self.seat.is_validation_asked(publication) {
                bail!("{NO_DATA}");
            }
            return Ok(false);
        }
        let is_ours = self.seat.claim_validation(publication);
        if is_ours {
            self.is_validating.store(true, Ordering::Release);
        }
        Ok(is_ours)
    }

    /// Validates on an idle engine; false when told to stop.
    fn validate(
        &self,
        engine: &mut Engine,
        publication: u64,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let Some(validator) = &self.validator else {
            return Ok(true);
        };
        // A learner that started anew asks anew, of weights that are still to be loaded.
        let is_wanted = || self.seat.holds_validation(publication);
        let answers = validator.answer(engine, publication, &is_wanted, is_stopping)?;
        engine.set_sampling(self.settings.sampling.clone())?;
        self.is_validating.store(false, Ordering::Release);
        let Some(answers) = answers else {
            return Ok(!is_stopping());
        };
        let outcome = Outcome::Validated(Box::new(answers));
        Ok(self.counters.clocks.blocked(Stage::Generate, || {
            send(&self.outcomes, outcome, is_stopping)
        }))
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
            has_greedy: self.seat.is_greedy_asked(),
            prompt: prompt.prompt.inputs.clone(),
            blank: prompt.prompt.blank_inputs.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_wait_for_groups_as_long_as_they_were_told_to() {
        let finish = TakeWeights::AfterGroups { max_steps: 3 };
        let due = |when: TakeWeights| [0, 2, 3, 1000].map(|steps| when.is_due(steps));
        assert_eq!(due(TakeWeights::BetweenGroups), [false; 4]);
        assert_eq!(due(TakeWeights::AtOnce), [true; 4]);
        assert_eq!(due(finish), [false, false, true, true]);
        assert!(finish.holds_groups());
        // Groups of the old version still begin: a learner may be waiting for them.
        assert!(!TakeWeights::BetweenGroups.holds_groups());
    }
}
