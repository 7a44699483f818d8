//! The first part of a step: waiting responses get rows, their prompts are read, their first tokens drawn.

use std::time::Instant;

use super::inputs::PromptInputs;
use super::schedule::Seat;
use super::{Engine, sample};
use crate::error::Result;

impl Engine {
    /// Fills free rows: each new prompt is read once, and the first token of each response drawn from its logits.
    pub(super) fn schedule(&mut self) -> Result<()> {
        let start = self.schedule.rows().len();
        let longest = self.settings.max_response_tokens;
        let (groups, backend) = (&mut self.groups, &mut self.backend);
        let mut prompts = Vec::new();
        loop {
            let placed = self.schedule.place(|seat| {
                let Some(group) = groups.get_mut(&seat.group) else {
                    return true;
                };
                let prompt = (group.started == 0).then_some(group.job.prompt.len());
                let is_admitted = backend.promise(prompt, longest);
                if is_admitted && group.started == 0 {
                    prompts.push(seat.group);
                }
                group.started += usize::from(is_admitted);
                is_admitted
            });
            if placed.is_none() {
                break;
            }
        }
        self.prefill(&prompts)?;
        self.seat(start)?;
        self.draw_first(start)
    }

    /// Reads the prompts of groups; several go through a pass together.
    fn prefill(&mut self, keys: &[u64]) -> Result<()> {
        let prompts: Vec<&PromptInputs> = keys
            .iter()
            .filter_map(|key| self.groups.get(key).map(|group| &group.job.prompt))
            .collect();
        if prompts.is_empty() {
            return Ok(());
        }
        let read = self.backend.prefill(&prompts, &mut self.spent)?;
        for (key, (place, logits)) in keys.iter().zip(read) {
            if let Some(group) = self.groups.get_mut(key) {
                group.prompt_place = Some(place);
                group.first_logits = Some(logits);
                group.prefill_version = self.version;
            }
        }
        Ok(())
    }

    /// Gives the responses in the rows from `start` on their places.
    fn seat(&mut self, start: usize) -> Result<()> {
        for seat in &self.schedule.rows()[start..] {
            if let Some(group) = self.groups.get_mut(&seat.group)
                && let Some(prompt) = &group.prompt_place
            {
                group.places[seat.response] = Some(self.backend.seat(prompt)?);
            }
        }
        Ok(())
    }

    /// Draws the first token of the responses in the rows from `start` on.
    fn draw_first(&mut self, start: usize) -> Result<()> {
        let clock = Instant::now();
        let seats = self.schedule.rows()[start..].to_vec();
        let of = |seat: &Seat| {
            let group = self.groups.get(&seat.group)?;
            Some((
                group.first_logits.as_deref()?,
                group.next_uniform(self.settings.run_seed, seat.response),
                group.prefill_version,
            ))
        };
        let known: Vec<_> = seats.iter().filter_map(of).collect();
        let logits: Vec<&[f32]> = known.iter().map(|(logits, ..)| *logits).collect();
        let uniforms: Vec<_> = known.iter().map(|(_, uniform, _)| *uniform).collect();
        let versions: Vec<_> = known.iter().map(|(.., version)| *version).collect();
        let tokens = sample::draw_rows(&mut self.samplers, &logits, &uniforms)?;
        for ((seat, token), version) in seats.into_iter().zip(tokens).zip(versions) {
            self.extend(seat, token, version);
            if let Some(group) = self.groups.get_mut(&seat.group)
                && group.started == group.job.num_responses()
            {
                group.first_logits = None;
                self.backend.all_began(&mut group.prompt_place);
            }
        }
        self.free_rows();
        self.spent.sampling += clock.elapsed();
        Ok(())
    }
}
