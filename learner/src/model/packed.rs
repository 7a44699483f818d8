//! A micro-batch laid out for one exact forward pass without padding in the linear layers.
//!
//! The tokens of all sequences lie in one flat list: first the prompt of every group, once, then every response without
//! its last token (which predicts nothing that is asked for). Only attention looks at rows: a prompt attends to itself,
//! a response to its group's prompt and to itself. That is what each sequence alone would compute, gradients included,
//! at a fraction of the cost: a prompt with its image is far longer than most responses.
//!
//! Rows are padded, so sequences of much the same length lie side by side in the list and share a set of rows (`sets`).
//! [`num_tokens`], the length of the list, is what a token budget counts.
//!
//! N tokens, R rows, L queries per row, M keys per row.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use models::config::ModelConfig;
use models::image::Patches;
use models::positions;
use tch::{Device, Kind, Tensor};

use super::reach::{Form, Reach};
use super::rows::Rows;
use super::sets::{Row, order, sets};
use super::spans::Spans;

/// The responses to one prompt.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// Prompt tokens, one image pad per merged image token.
    pub prompt_ids: &'a [u32],
    /// The prompt's images, in the order of their pads.
    pub images: &'a [Patches],
    /// Tokens of each response, the EOS included where there is one; none may be empty.
    pub responses: Vec<&'a [u32]>,
}

impl Group<'_> {
    /// Tokens that the decoder has to compute for this group.
    pub fn num_tokens(&self) -> usize {
        num_tokens(
            self.prompt_ids.len(),
            self.responses.iter().map(|response| response.len()),
        )
    }
}

/// N of a group: what a token budget counts. All layers but attention compute exactly these; attention pads, at the most,
/// as much again.
pub fn num_tokens(prompt_len: usize, response_lens: impl Iterator<Item = usize>) -> usize {
    prompt_len + response_lens.map(computed).sum::<usize>()
}

/// Tokens of a response that are computed: the last one predicts nothing.
fn computed(response_len: usize) -> usize {
    response_len.saturating_sub(1)
}

/// Groups that go through the model together. The result does not depend on how groups are put together.
#[derive(Debug, Clone, Default)]
pub struct MicroBatch<'a> {
    /// The groups; flat results come in the order of groups, then responses, then tokens.
    pub groups: Vec<Group<'a>>,
}

impl MicroBatch<'_> {
    /// Response tokens of all groups: the length of every flat result.
    pub fn num_response_tokens(&self) -> usize {
        self.groups
            .iter()
            .flat_map(|group| &group.responses)
            .map(|response| response.len())
            .sum()
    }
}

/// The tensors of one forward pass.
#[derive(Debug)]
pub struct Packed {
    /// i64 [N].
    pub token_ids: Tensor,
    /// M-RoPE positions: temporal, row, column; [3][N].
    pub positions: [Vec<i64>; 3],
    /// Flat tokens that are replaced by image features, i64.
    pub image_tokens: Tensor,
    /// Who attends to whom.
    pub reach: Reach,
    /// Flat token whose output predicts each response token, i64 [n].
    pub predictors: Tensor,
    /// The response tokens, i64 [n].
    pub targets: Tensor,
}

impl Packed {
    /// Lays out a micro-batch for attention over padded rows; fails when a prompt's pads and images do not match.
    pub fn new(batch: &MicroBatch<'_>, config: &ModelConfig, device: Device) -> Result<Self> {
        Self::of(batch, config, device, Form::Rows)
    }

    /// The same for a form of attention.
    pub fn of(
        batch: &MicroBatch<'_>,
        config: &ModelConfig,
        device: Device,
        form: Form,
    ) -> Result<Self> {
        ensure!(!batch.groups.is_empty(), "an empty micro-batch");
        let places = Places::new(batch)?;
        let mut token_ids = vec![0; places.num_tokens];
        let mut positions = [(); 3].map(|()| vec![0; places.num_tokens]);
        let mut image_tokens = Vec::new();
        let mut predictors = Vec::new();
        let mut targets = Vec::new();
        let mut responses = places.responses.iter();
        for (index, (group, prompt)) in batch.groups.iter().zip(&places.prompts).enumerate() {
            let grids: Vec<_> = group.images.iter().map(|image| image.grid).collect();
            let placed = positions::mrope(group.prompt_ids, &grids, config)
                .with_context(|| format!("group {index}"))?;
            for (flat, &id) in prompt.range().zip(group.prompt_ids) {
                check_id(id, config)?;
                if id == config.tokens.image {
                    image_tokens.push(i64::try_from(flat)?);
                }
                token_ids[flat] = i64::from(id);
            }
            for (all, own) in positions.iter_mut().zip(&placed.ids) {
                all[prompt.range()].copy_from_slice(own);
            }
            for (tokens, (_, span)) in group.responses.iter().zip(&mut responses) {
                let mut predictor = prompt.range().end - 1;
                for (offset, &id) in tokens.iter().enumerate() {
                    check_id(id, config)?;
                    predictors.push(i64::try_from(predictor)?);
                    targets.push(i64::from(id));
                    predictor = span.first + offset;
                    if offset < span.len {
                        token_ids[predictor] = i64::from(id);
                        for axis in &mut positions {
                            axis[predictor] = placed.next + offset as i64;
                        }
                    }
                }
            }
        }
        Ok(Self {
            token_ids: Tensor::from_slice(&token_ids).to_device(device),
            positions,
            image_tokens: Tensor::from_slice(&image_tokens).to_device(device),
            reach: match form {
                Form::Rows => Reach::Rows(places.rows(device)?),
                Form::Spans => Reach::Spans(places.spans(device)?),
            },
            predictors: Tensor::from_slice(&predictors).to_device(device),
            targets: Tensor::from_slice(&targets).to_device(device),
        })
    }
}

/// Consecutive flat tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    first: usize,
    len: usize,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.first..self.first + self.len
    }
}

/// Where each sequence lies in the flat list: prompts first, and among prompts and responses those of like length together.
struct Places {
    num_tokens: usize,
    /// In the order of the groups.
    prompts: Vec<Span>,
    /// The group and the computed tokens of each response, in the order of groups and responses.
    responses: Vec<(usize, Span)>,
    /// Prompts, and responses of at least one computed token, in the order of the flat list.
    prompt_order: Vec<usize>,
    response_order: Vec<usize>,
}

impl Places {
    fn new(batch: &MicroBatch<'_>) -> Result<Self> {
        let mut prompts = Vec::new();
        let mut responses = Vec::new();
        for (index, group) in batch.groups.iter().enumerate() {
            let shared = group.prompt_ids.len();
            ensure!(shared > 0, "group {index}: empty prompt");
            prompts.push(Row {
                shared: 0,
                own: shared,
            });
            for response in &group.responses {
                ensure!(!response.is_empty(), "group {index}: empty response");
                let own = computed(response.len());
                responses.push((index, Row { shared, own }));
            }
        }
        let response_rows: Vec<Row> = responses.iter().map(|(_, row)| *row).collect();
        let (prompt_order, mut response_order) = (order(&prompts), order(&response_rows));
        response_order.retain(|&index| response_rows[index].own > 0);
        let mut first = 0;
        let prompt_spans = place(&prompts, &prompt_order, &mut first);
        let response_spans = place(&response_rows, &response_order, &mut first);
        let groups = responses.iter().map(|(group, _)| *group);
        Ok(Self {
            num_tokens: first,
            prompts: prompt_spans,
            responses: groups.zip(response_spans).collect(),
            prompt_order,
            response_order,
        })
    }

    /// All sequences, in flat order.
    fn spans(&self, device: Device) -> Result<Spans> {
        let prompts = self.prompt_order.iter().map(|&index| {
            let own = self.prompts[index];
            (Span::default(), own)
        });
        let responses = self.response_order.iter().map(|&index| {
            let (group, own) = self.responses[index];
            (self.prompts[group], own)
        });
        let sequences: Vec<(Row, usize, usize)> = prompts
            .chain(responses)
            .map(|(shared, own)| {
                let row = Row {
                    shared: shared.len,
                    own: own.len,
                };
                (row, shared.first, own.first)
            })
            .collect();
        Spans::causal(&sequences, device)
    }

    /// The sets of rows, their tokens in flat order.
    fn rows(&self, device: Device) -> Result<Vec<Rows>> {
        let prompts: Vec<Span> = self.prompt_order.iter().map(|&p| self.prompts[p]).collect();
        let responses: Vec<(Span, Span)> = self
            .response_order
            .iter()
            .map(|&r| (self.prompts[self.responses[r].0], self.responses[r].1))
            .collect();
        let shape = |shared: Span, own: Span| Row {
            shared: shared.len,
            own: own.len,
        };
        let alone: Vec<Row> = prompts
            .iter()
            .map(|&own| shape(Span::default(), own))
            .collect();
        let after: Vec<Row> = responses
            .iter()
            .map(|&(prompt, own)| shape(prompt, own))
            .collect();
        let of_prompts = sets(&alone)
            .into_iter()
            .map(|set| prompt_rows(&prompts[set], device));
        let of_responses = sets(&after)
            .into_iter()
            .map(|set| response_rows(&responses[set], device));
        of_prompts.chain(of_responses).collect()
    }
}

/// Gives the rows in that order their places from `first` on; a row that is not in it has none.
fn place(rows: &[Row], order: &[usize], first: &mut usize) -> Vec<Span> {
    let mut spans = vec![Span::default(); rows.len()];
    for &index in order {
        let len = rows[index].own;
        spans[index] = Span { first: *first, len };
        *first += len;
    }
    spans
}

/// Prompts attend to themselves, causally: padding stands on the right, where no real token looks.
fn prompt_rows(prompts: &[Span], device: Device) -> Result<Rows> {
    let width = widest(prompts);
    let (slots, unslot) = slots(prompts, width)?;
    let slots = Tensor::from_slice(&slots).to_device(device);
    Ok(Rows {
        num_rows: i64::try_from(prompts.len())?,
        num_queries: i64::try_from(width)?,
        num_keys: i64::try_from(width)?,
        keys: slots.shallow_clone(),
        queries: slots,
        mask: None,
        is_causal: true,
        unslot: Tensor::from_slice(&unslot).to_device(device),
    })
}

/// A response attends to all of its prompt (key slots 0..P) and causally to itself (key slots P..P+L).
fn response_rows(rows: &[(Span, Span)], device: Device) -> Result<Rows> {
    let (prompts, responses): (Vec<Span>, Vec<Span>) = rows.iter().copied().unzip();
    let (prompt_width, width) = (widest(&prompts), widest(&responses));
    let (queries, unslot) = slots(&responses, width)?;
    let (prompt_keys, _) = slots(&prompts, prompt_width)?;

    let num_rows = i64::try_from(responses.len())?;
    let (width, prompt_width) = (i64::try_from(width)?, i64::try_from(prompt_width)?);
    let queries = Tensor::from_slice(&queries).to_device(device);
    let prompt_keys = Tensor::from_slice(&prompt_keys)
        .to_device(device)
        .view([num_rows, prompt_width]);
    let keys = Tensor::cat(&[prompt_keys, queries.view([num_rows, width])], 1); // [R, P+L]

    let options = (Kind::Int64, device);
    let prompt_lens: Vec<i64> = prompts
        .iter()
        .map(|span| Ok(i64::try_from(span.len)?))
        .collect::<Result<_>>()?;
    let prompt_lens = Tensor::from_slice(&prompt_lens)
        .to_device(device)
        .view([num_rows, 1, 1]);
    let sees_prompt = Tensor::arange(prompt_width, options).lt_tensor(&prompt_lens); // [R, 1, P]
    let sees_prompt = sees_prompt.expand([num_rows, width, prompt_width], false);
    let sees_self = Tensor::ones([width, width], (Kind::Bool, device))
        .tril(0)
        .expand([num_rows, width, width], false);
    let hidden = Tensor::cat(&[sees_prompt, sees_self], 2).logical_not(); // [R, L, P+L]
    let mask = Tensor::zeros(
        [num_rows, width, prompt_width + width],
        (Kind::Float, device),
    )
    .masked_fill(&hidden, f64::NEG_INFINITY);
    Ok(Rows {
        num_rows,
        num_queries: width,
        num_keys: prompt_width + width,
        queries,
        keys: keys.flatten(0, 1),
        mask: Some(mask.unsqueeze(1)),
        is_causal: false,
        unslot: Tensor::from_slice(&unslot).to_device(device),
    })
}

fn widest(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.len).max().unwrap_or(0)
}

/// Each span as a row of `width` slots: the flat token of every slot (padding: token 0) and the slots that hold a token.
fn slots(spans: &[Span], width: usize) -> Result<(Vec<i64>, Vec<i64>)> {
    let mut tokens = vec![0; spans.len() * width];
    let mut unslot = Vec::new();
    for (row, span) in spans.iter().enumerate() {
        for offset in 0..span.len {
            let slot = row * width + offset;
            tokens[slot] = i64::try_from(span.first + offset)?;
            unslot.push(i64::try_from(slot)?);
        }
    }
    Ok((tokens, unslot))
}

/// libtorch's lookup would abort on an id outside the vocabulary.
fn check_id(id: u32, config: &ModelConfig) -> Result<()> {
    ensure!(
        (id as usize) < config.text.vocab_size,
        "token id {id} is outside the vocabulary of {}",
        config.text.vocab_size
    );
    Ok(())
}
