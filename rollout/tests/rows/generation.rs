//! Generation with rows alone, without the engine's loop.

use rollout::engine::Job;
use rollout::engine::rows::{PromptRow, ResponseRow, RowToken, Rows};
use rollout::sampler::{Sampling, Scored, uniform};

use crate::fixture_model::Model;
use crate::setup::{MAX_TOKENS, TOLERANCE, rows, sampling};

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

#[test]
fn a_step_takes_a_token_of_every_response_and_rows_another_head() {
    let model = Model::load();
    let sampling = sampling(&model, 0.0);
    let mut rows = rows(&model, &model.weights, 3, 64, &sampling);
    let job = &model.jobs(1)[0];
    let (prompt, _) = rows.prefill(&job.prompt).unwrap().unwrap();
    let seated = [(); 2].map(|()| rows.seat(&prompt).unwrap().unwrap());
    let tokens = seated.each_ref().map(|row| RowToken {
        row,
        token_id: 7,
        slot: job.prompt.len(),
        position: job.prompt.positions.next,
        uniform: None,
    });
    let [first, second] = tokens;
    // Left out, the first row would be written over; twice, it would be read once.
    for wrong in [
        vec![second],
        vec![first, first],
        vec![first, second, second],
    ] {
        let refused = rows.decode(&wrong).unwrap_err().to_string();
        assert!(refused.contains("one token of each response"), "{refused}");
    }
    let before = rows.decode(&tokens).unwrap();
    assert_eq!(before[0].token, before[1].token);

    // The head measures by what the rows draw by, and is open for as many bans as it has.
    let warm = Sampling {
        temperature: 2.0,
        ..sampling.clone()
    };
    rows.set_sampling(warm.clone()).unwrap();
    let after = rows.decode(&tokens).unwrap();
    assert!(after[0].entropy > before[0].entropy);
    let model = crate::setup::row_model(&model, &model.weights, 3, 64, &sampling);
    let mut other = Rows::new(model, warm).unwrap();
    let (prompt, _) = other.prefill(&job.prompt).unwrap().unwrap();
    let row = other.seat(&prompt).unwrap().unwrap();
    let token = RowToken { row: &row, ..first };
    let got = other.decode(&[token]).unwrap()[0];
    assert!((got.entropy - after[0].entropy).abs() < TOLERANCE);
    assert!((got.logprob - after[0].logprob).abs() < TOLERANCE);
    let mut more = sampling;
    more.banned.push(9);
    let refused = other.set_sampling(more).unwrap_err().to_string();
    assert!(refused.contains("banned tokens"), "{refused}");
}
