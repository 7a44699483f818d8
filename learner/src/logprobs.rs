//! Log-probabilities of response tokens, and the way back from their gradient.
//!
//! The head is by far the widest layer, so logits exist for one chunk of positions at a time, and only at positions that
//! are asked for. The backward pass computes a chunk's logits again, with the gradient that the loss gave for it; a
//! position whose gradient is zero (a token of weight 0) is left out.
//!
//! n response tokens of the micro-batch, E hidden, V vocab. Logprob t is of token t given the tokens before it; the shift
//! is in `model::packed`, nowhere else.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor, no_grad};

use crate::model::{MicroBatch, Model, Packed};

/// Logits that exist at one time, in floats: 64 MiB.
const MAX_LOGITS: i64 = 1 << 24;

/// The policy's view of a micro-batch, with the graph up to the hidden states.
#[derive(Debug)]
pub struct PolicyLogprobs {
    /// log pi(token), natural, of every response token, f32 [n]; a leaf without gradient.
    pub logprobs: Tensor,
    /// Entropy over the whole vocabulary in nats at every response token, f32 [n].
    pub entropies: Tensor,
    hidden: Tensor,  // [n, E], with its graph
    targets: Tensor, // [n]
    temperature: f64,
}

impl PolicyLogprobs {
    /// Runs the model over a micro-batch; logits are divided by `temperature`.
    pub fn forward(model: &Model, batch: &MicroBatch<'_>, temperature: f64) -> Result<Self> {
        ensure!(
            temperature > 0.0,
            "temperature must be above 0, got {temperature}"
        );
        let packed = Packed::new(batch, model.config(), model.device())?;
        let hidden = model
            .hidden(batch, &packed)?
            .index_select(0, &packed.predictors); // [n, E]
        let (logprobs, entropies) = no_grad(|| read(model, &hidden, &packed.targets, temperature))?;
        Ok(Self {
            logprobs,
            entropies,
            hidden,
            targets: packed.targets,
            temperature,
        })
    }

    /// Adds the gradient of a loss to the parameters, given d loss / d logprob, f32 [n]. The graph is freed.
    pub fn backward(self, model: &Model, dloss_dlogprobs: &Tensor) -> Result<()> {
        let expected = self.hidden.size2()?.0;
        let got = dloss_dlogprobs.size1()?;
        ensure!(
            got == expected,
            "gradient of {got} logprobs, expected {expected}"
        );
        let gradient = dloss_dlogprobs.detach().to_device(model.device());
        let wanted = gradient.nonzero().squeeze_dim(1); // [m]
        if wanted.size1()? == 0 {
            return Ok(());
        }
        let gradient = gradient.index_select(0, &wanted);
        let targets = self.targets.index_select(0, &wanted);
        let hidden = self.hidden.index_select(0, &wanted); // [m, E]
        let needs_graph = hidden.requires_grad();
        let leaf = hidden.detach().set_requires_grad(needs_graph);
        for (start, len) in chunks(wanted.size1()?, vocab(model)?) {
            let logprobs = log_softmax(model, &leaf.narrow(0, start, len), self.temperature);
            let logprobs = logprobs
                .gather(1, &targets.narrow(0, start, len).unsqueeze(1), false)
                .squeeze_dim(1); // [len]
            if logprobs.requires_grad() {
                (logprobs * gradient.narrow(0, start, len))
                    .sum(Kind::Float)
                    .f_backward()?;
            }
        }
        if needs_graph {
            (hidden * leaf.grad()).sum(Kind::Float).f_backward()?;
        }
        Ok(())
    }
}

/// Logprobs and entropies [n] of a micro-batch without any graph: for a frozen reference, or to look.
pub fn logprobs(
    model: &Model,
    batch: &MicroBatch<'_>,
    temperature: f64,
) -> Result<(Tensor, Tensor)> {
    let pass = no_grad(|| PolicyLogprobs::forward(model, batch, temperature))?;
    Ok((pass.logprobs, pass.entropies))
}

/// Logprobs and entropies [n], chunk by chunk.
fn read(
    model: &Model,
    hidden: &Tensor,
    targets: &Tensor,
    temperature: f64,
) -> Result<(Tensor, Tensor)> {
    let mut logprobs = Vec::new();
    let mut entropies = Vec::new();
    for (start, len) in chunks(targets.size1()?, vocab(model)?) {
        let all = log_softmax(model, &hidden.narrow(0, start, len), temperature); // [len, V]
        logprobs.push(
            all.gather(1, &targets.narrow(0, start, len).unsqueeze(1), false)
                .squeeze_dim(1),
        );
        entropies.push(-(all.exp() * &all).sum_dim_intlist(-1, false, Kind::Float));
    }
    ensure!(
        !logprobs.is_empty(),
        "a micro-batch without response tokens"
    );
    Ok((Tensor::cat(&logprobs, 0), Tensor::cat(&entropies, 0)))
}

/// hidden [len, E] -> log-probabilities over the vocabulary, f32 [len, V].
fn log_softmax(model: &Model, hidden: &Tensor, temperature: f64) -> Tensor {
    let logits = model.logits(hidden).to_kind(Kind::Float);
    let logits = if temperature == 1.0 {
        logits
    } else {
        logits / temperature
    };
    logits.log_softmax(-1, Kind::Float)
}

/// V.
fn vocab(model: &Model) -> Result<i64> {
    Ok(i64::try_from(model.config().text.vocab_size)?)
}

/// Start and length of each chunk of `count` positions: as many at a time as [`MAX_LOGITS`] allows, at least one.
fn chunks(count: i64, vocab: i64) -> impl Iterator<Item = (i64, i64)> {
    let size = (MAX_LOGITS / vocab).max(1);
    let starts = std::iter::successors(Some(0), move |start| Some(start + size));
    starts
        .take_while(move |start| *start < count)
        .map(move |start| (start, size.min(count - start)))
}

#[cfg(test)]
mod tests {
    use super::{MAX_LOGITS, chunks};

    #[test]
    fn chunks_cover_every_position_once() {
        assert_eq!(
            chunks(5, MAX_LOGITS / 2).collect::<Vec<_>>(),
            [(0, 2), (2, 2), (4, 1)]
        );
        assert_eq!(
            chunks(2, MAX_LOGITS * 3).collect::<Vec<_>>(),
            [(0, 1), (1, 1)]
        );
        assert_eq!(chunks(7, 10).collect::<Vec<_>>(), [(0, 7)]);
        assert_eq!(chunks(0, 10).count(), 0);
    }
}
