//! The last part of a step: groups whose responses have all ended are scored without their image and handed over.

use std::time::Instant;

use super::Engine;
use super::group::{FinishedGroup, Group, Response};
use super::inputs::PromptInputs;
use super::score::Given;
use crate::error::Result;
use crate::sampler::Scored;

impl Engine {
    /// Takes leave of the groups whose responses have all ended, in the order they came, after scoring them with the
    /// image blanked (eq. 8). Without an image nothing changes.
    pub(super) fn finish(&mut self) -> Result<()> {
        let is_over = |(key, group): (&u64, &Group)| (group.unfinished == 0).then_some(*key);
        let mut keys: Vec<u64> = self.groups.iter().filter_map(is_over).collect();
        keys.sort_unstable();
        let mut groups: Vec<Group> = keys
            .iter()
            .filter_map(|key| self.groups.remove(key))
            .collect();
        for group in &mut groups {
            self.backend.give_back_prompt(group.prompt_place.take());
        }
        let greedy: Vec<Option<Response>> = groups.iter_mut().map(Group::take_greedy).collect();
        self.blank_pass(&mut groups)?;
        let finished = groups.into_iter().zip(greedy);
        self.finished
            .extend(finished.map(|(group, greedy)| FinishedGroup {
                ticket: group.job.ticket,
                responses: group.responses,
                greedy,
            }));
        Ok(())
    }

    fn blank_pass(&mut self, groups: &mut [Group]) -> Result<()> {
        let start = Instant::now();
        for group in groups.iter_mut().filter(|group| group.job.blank.is_none()) {
            group.responses.iter_mut().for_each(Response::copy_to_blank);
        }
        let mut groups: Vec<&mut Group> = groups
            .iter_mut()
            .filter(|group| group.job.blank.is_some())
            .collect();
        let given: Vec<Given<'_>> = groups
            .iter()
            .filter_map(|group| {
                let responses = group.responses.iter();
                Some(Given {
                    prompt: group.job.blank.as_ref()?,
                    responses: responses
                        .map(|response| response.token_ids.as_slice())
                        .collect(),
                })
            })
            .collect();
        let scores = self.backend.score(&mut self.samplers, &given)?;
        for (group, scores) in groups.iter_mut().zip(scores) {
            for (response, scores) in group.responses.iter_mut().zip(scores) {
                response.blank_logprobs = scores.iter().map(|token| token.logprob).collect();
                response.blank_entropies = scores.iter().map(|token| token.entropy).collect();
            }
        }
        self.spent.blank += start.elapsed();
        Ok(())
    }

    /// Scores given responses, none of them empty, after `prompt`: the teacher-forced twin of decoding them.
    ///
    /// # Errors
    /// As for [`Self::step`].
    pub fn score(
        &mut self,
        prompt: &PromptInputs,
        responses: &[&[u32]],
    ) -> Result<Vec<Vec<Scored>>> {
        let given = Given {
            prompt,
            responses: responses.to_vec(),
        };
        let scores = self.backend.score(&mut self.samplers, &[given])?;
        Ok(scores.into_iter().next().unwrap_or_default())
    }
}
