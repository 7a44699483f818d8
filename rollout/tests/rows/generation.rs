//! Generation with rows alone, without the engine's loop.

use rollout::engine::Job;
use rollout::engine::rows::{PromptRow, ResponseRow, RowToken, Rows};
use rollout::sampler::{Sampling, Scored, uniform};

use crate::fixture_model::Model;
use crate::setup::MAX_TOKENS;

/// A response under way.
struct Open<'a> {
    job: &'a Job,
    index: usize,
    row: ResponseRow,
    tokens: Vec<Scored>,
}

impl Open<'_> {
    fn uniform(&self) -> f64 {
        uniform(
            5,
            self.job.ticket.0,
            self.index as u64,
            self.tokens.len() as u64,
        )
    }
}

/// All responses of all jobs in order, as many side by side as there are rows: some prompts wait, and rows are used again.
pub(crate) fn generate(
    rows: &mut Rows,
    jobs: &[Job],
    eos: &[u32],
    first: impl Fn(&[f32], f64) -> Scored,
) -> Vec<Vec<Scored>> {
    let mut done: Vec<(u64, usize, Vec<Scored>)> = Vec::new();
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut jobs = jobs.iter();
    let mut next: Option<(&Job, PromptRow, Vec<f32>, usize)> = None;
    loop {
        loop {
            if next.is_none() {
                let Some(job) = jobs.next() else { break };
                let (prompt, logits) = rows.prefill(&job.prompt).unwrap().unwrap();
                next = Some((job, prompt, logits, 0));
            }
            let (job, prompt, logits, index) = next.take().unwrap();
            let Some(row) = rows.seat(&prompt).unwrap() else {
                next = Some((job, prompt, logits, index));
                break;
            };
            let mut response = Open {
                job,
                index,
                row,
                tokens: Vec::new(),
            };
            response.tokens.push(first(&logits, response.uniform()));
            open.push(response);
            if index + 1 < job.group_size {
                next = Some((job, prompt, logits, index + 1));
            } else {
                rows.give_back_prompt(prompt);
            }
        }
        let is_over = |tokens: &[Scored]| {
            tokens.len() == MAX_TOKENS || eos.contains(&tokens.last().unwrap().token)
        };
        let (over, rest): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|open| is_over(&open.tokens));
        open = rest;
        for response in over {
            done.push((response.job.ticket.0, response.index, response.tokens));
            rows.give_back(response.row);
        }
        if open.is_empty() {
            if next.is_none() && jobs.len() == 0 {
                break;
            }
            continue;
        }
        let tokens: Vec<RowToken<'_>> = open
            .iter()
            .map(|open| {
                let read = open.tokens.len() - 1;
                RowToken {
                    row: &open.row,
                    token_id: open.tokens[read].token,
                    slot: open.job.prompt.len() + read,
                    position: open.job.prompt.positions.next + read as i64,
                    uniform: Some(open.uniform()),
                }
            })
            .collect();
        let drawn = rows.decode(&tokens).unwrap();
        for (open, token) in open.iter_mut().zip(drawn) {
            open.tokens.push(token);
        }
    }
    done.sort_by_key(|&(ticket, index, _)| (ticket, index));
    done.into_iter().map(|(.., tokens)| tokens).collect()
}

pub(crate) fn greedily(
    rows: &mut Rows,
    model: &Model,
    group_size: usize,
    sampling: &Sampling,
) -> Vec<Vec<Scored>> {
    let eos = &model.processor.config.tokens.eos;
    let first = |logits: &[f32], _: f64| {
        rollout::sampler::Sampler::new(sampling.clone())
            .likeliest(logits)
            .unwrap()
    };
    generate(rows, &model.jobs(group_size), eos, first)
}
