//! Log-probabilities of response tokens, and the way back from their gradient.
//!
//! The head is by far the widest layer, so logits exist for one chunk of positions at a time, and only at positions that
//! are asked for. The backward pass computes a chunk's logits again, with the gradient that the loss gave for it; a
//! position whose gradient is zero (a token of weight 0) is left out.
//!
//! A loss may also depend on each position's whole distribution: on its entropy H = -sum_v p_v log p_v, and on its
//! KL(policy, reference) = sum_v p_v (log p_v - log q_v). Their gradients go the same way, chunk by chunk; of the reference
//! only the hidden states are kept, [n, E].
//!
//! n response tokens of the micro-batch, E hidden, V vocab. Logprob t is of token t given the tokens before it; the shift
//! is in `model::packed`, nowhere else.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor, no_grad};

use crate::model::{MicroBatch, Model, Packed, Trace, gradient};

/// Logits of a chunk, in floats: on a CPU 24 MiB, so that the allocator keeps the block (see `allocator`); on a GPU 512 MiB, so
/// that reading the head and adding to its gradient, once per chunk, take little beside the products.
const CPU_LOGITS: i64 = 6 << 20;
const GPU_LOGITS: i64 = 128 << 20;
/// Positions of a chunk however wide the vocabulary is: each chunk's way back adds to a gradient as large as the head.
const MIN_POSITIONS: i64 = 256;

/// The policy's view of a micro-batch, and what its way back needs.
#[derive(Debug)]
pub struct PolicyLogprobs {
    /// log pi(token), natural, of every response token, f32 [n]; a leaf without gradient.
    pub logprobs: Tensor,
    /// Entropy over the whole vocabulary in nats at every response token, f32 [n].
    pub entropies: Tensor,
    hidden: Tensor, // [n, E]
    packed: Packed,
    trace: Trace,
    temperature: f64,
}

impl PolicyLogprobs {
    /// Runs the model over a micro-batch; logits are divided by `temperature`.
    pub fn forward(model: &Model, batch: &MicroBatch<'_>, temperature: f64) -> Result<Self> {
        check_temperature(temperature)?;
        let packed = model.pack(batch)?;
        let (all, trace) = model.trace(batch, &packed)?; // [N, E]
        let hidden = all.index_select(0, &packed.predictors); // [n, E]
        let (logprobs, entropies) = no_grad(|| read(model, &hidden, &packed.targets, temperature))?;
        Ok(Self {
            logprobs,
            entropies,
            hidden,
            packed,
            trace,
            temperature,
        })
    }

    /// KL(policy, reference) over the vocabulary in nats at every response token, f32 [n].
    pub fn full_kl(&self, model: &Model, reference: &Frozen<'_>) -> Result<Tensor> {
        no_grad(|| {
            let mut kls = Vec::new();
            for (start, len) in chunks(model, self.packed.targets.size1()?)? {
                let all = log_softmax(model, &self.hidden.narrow(0, start, len), self.temperature);
                kls.push(kl(&all, &reference.log_softmax(start, len)));
            }
            Ok(Tensor::cat(&kls, 0))
        })
    }

    /// Adds the gradient of a loss to the parameters, given d loss / d logprob, f32 [n]. What was kept is freed.
    pub fn backward(self, model: &Model, dloss_dlogprobs: &Tensor) -> Result<()> {
        self.backward_all(
            model,
            &LossGradient {
                logprobs: dloss_dlogprobs,
                entropies: None,
                kl: None,
            },
        )
    }

    /// The same for a loss that depends on more of each token's distribution than its logprob.
    pub fn backward_all(self, model: &Model, loss: &LossGradient<'_>) -> Result<()> {
        let expected = self.hidden.size2()?.0;
        let on_device = |gradient: &Tensor| -> Result<Tensor> {
            let got = gradient.size1()?;
            ensure!(
                got == expected,
                "gradient of {got} logprobs, expected {expected}"
            );
            Ok(gradient.detach().to_device(model.device()))
        };
        let of_logprobs = on_device(loss.logprobs)?;
        let of_entropies = loss.entropies.map(on_device).transpose()?;
        let of_kl = match loss.kl {
            Some((reference, gradient)) => Some((reference, on_device(gradient)?)),
            None => None,
        };
        let others = of_entropies.iter().chain(of_kl.iter().map(|(_, kl)| kl));
        let is_wanted = others.fold(of_logprobs.not_equal(0.0), |wanted, other| {
            wanted.logical_or(&other.not_equal(0.0))
        });
        let wanted = is_wanted.nonzero().squeeze_dim(1); // [m]
        if wanted.size1()? == 0 {
            return Ok(());
        }
        let needs_gradient = model.needs_gradient(&self.trace);
        if !needs_gradient && !model.is_head_trained() {
            return Ok(());
        }
        let of_logprobs = of_logprobs.index_select(0, &wanted);
        let of_entropies = of_entropies.map(|gradient| gradient.index_select(0, &wanted));
        let of_kl = of_kl.map(|(reference, gradient)| {
            (reference.at(&wanted), gradient.index_select(0, &wanted))
        });
        let targets = self.packed.targets.index_select(0, &wanted);
        let predictors = self.packed.predictors.index_select(0, &wanted);
        let hidden = self.hidden.index_select(0, &wanted); // [m, E]
        drop(self.hidden);
        let size = [self.packed.token_ids.size1()?, hidden.size2()?.1];
        // In f32: a prompt's last token predicts the first one of each of its responses.
        let mut by_hidden = Tensor::zeros(size, (Kind::Float, hidden.device())); // [N, E]
        for (start, len) in chunks(model, wanted.size1()?)? {
            let part = |tensor: &Tensor| tensor.narrow(0, start, len);
            let hidden = part(&hidden);
            let all = no_grad(|| log_softmax(model, &hidden, self.temperature)); // [len, V]
            let reference = of_kl
                .as_ref()
                .map(|(reference, gradient)| (reference.log_softmax(start, len), part(gradient)));
            let by_logits = no_grad(|| {
                Derivatives {
                    targets: part(&targets),
                    of_logprobs: part(&of_logprobs),
                    of_entropies: of_entropies.as_ref().map(part),
                    of_kl: reference,
                }
                .by_logits(all, self.temperature)
            })?;
            let by_part = model.logits_backward(&hidden, by_logits)?;
            gradient::add_rows(&mut by_hidden, &part(&predictors), &by_part)?;
        }
        if !needs_gradient {
            return Ok(());
        }
        let by_hidden = by_hidden.to_kind(hidden.kind());
        drop(hidden);
        model.backward(self.trace, &self.packed, &by_hidden)
    }
}

/// The derivatives of a loss at a chunk of positions, f32 [len] each.
struct Derivatives {
    /// The tokens, i64.
    targets: Tensor,
    /// g, by log pi(token).
    of_logprobs: Tensor,
    /// a, by the entropy H.
    of_entropies: Option<Tensor>,
    /// log q of the reference, f32 [len, V], and b, by the KL.
    of_kl: Option<(Tensor, Tensor)>,
}

impl Derivatives {
    /// dL/d logit z_v, f32 [len, V], from `all`, the log p_v of p = softmax(z / T), in whose memory it is written:
    ///
    /// T dL/dz_v = g ([v is the token] - p_v) - a p_v (log p_v + H) + b p_v (log p_v - log q_v - KL)
    fn by_logits(self, mut all: Tensor, temperature: f64) -> Result<Tensor> {
        let targets = self.targets.unsqueeze(1); // [len, 1]
        let at_target = self.of_logprobs.unsqueeze(1); // [len, 1]
        // What stands behind p_v: a number per position, and where the loss asks for more one per token.
        let mut factor = -&at_target;
        let mut by_token: Option<Tensor> = None;
        if let Some(a) = self.of_entropies {
            let (a, entropy) = (a.unsqueeze(1), entropy(&all).unsqueeze(1));
            factor -= &a * entropy;
            by_token = Some(&all * -a);
        }
        if let Some((mut reference, b)) = self.of_kl {
            let (b, kl) = (b.unsqueeze(1), kl(&all, &reference).unsqueeze(1));
            factor -= &b * kl;
            let difference = reference.f_sub_(&all)?.f_mul_(&-b)?;
            by_token = Some(match by_token {
                Some(sum) => sum + difference,
                None => difference,
            });
        }
        let mut p = all.f_exp_()?;
        let mut by_logits = match by_token {
            Some(mut by_token) => p.f_mul_(&by_token.f_add_(&factor)?)?,
            None => p.f_mul_(&factor)?,
        };
        by_logits = by_logits.f_scatter_add_(1, &targets, &at_target)?;
        if temperature != 1.0 {
            by_logits = by_logits.f_div_scalar_(temperature)?;
        }
        Ok(by_logits)
    }
}

/// The derivative of a loss by what it sees of each response token, f32 [n] each.
#[derive(Clone, Copy, Debug)]
pub struct LossGradient<'a> {
    /// By log pi(token).
    pub logprobs: &'a Tensor,
    /// By the entropy of its distribution.
    pub entropies: Option<&'a Tensor>,
    /// By KL(policy, reference) of its distribution.
    pub kl: Option<(&'a Frozen<'a>, &'a Tensor)>,
}

/// A frozen model's view of a micro-batch.
#[derive(Debug)]
pub struct Frozen<'a> {
    model: &'a Model,
    hidden: Tensor, // [n, E]
    temperature: f64,
}

impl<'a> Frozen<'a> {
    /// Runs the model over a micro-batch, without a graph.
    pub fn forward(model: &'a Model, batch: &MicroBatch<'_>, temperature: f64) -> Result<Self> {
        let packed = model.pack(batch)?;
        let hidden = no_grad(|| model.hidden(batch, &packed))?.index_select(0, &packed.predictors);
        Ok(Self {
            model,
            hidden,
            temperature,
        })
    }

    /// The same at some of the tokens.
    fn at(&self, tokens: &Tensor) -> Self {
        Self {
            model: self.model,
            hidden: self.hidden.index_select(0, tokens),
            temperature: self.temperature,
        }
    }

    fn log_softmax(&self, start: i64, len: i64) -> Tensor {
        no_grad(|| {
            log_softmax(
                self.model,
                &self.hidden.narrow(0, start, len),
                self.temperature,
            )
        })
    }
}

/// Logprobs and entropies [n] of a micro-batch without any graph: for a frozen reference, or to look.
pub fn logprobs(
    model: &Model,
    batch: &MicroBatch<'_>,
    temperature: f64,
) -> Result<(Tensor, Tensor)> {
    check_temperature(temperature)?;
    no_grad(|| {
        let packed = model.pack(batch)?;
        let hidden = model.hidden(batch, &packed)?;
        let hidden = hidden.index_select(0, &packed.predictors); // [n, E]
        read(model, &hidden, &packed.targets, temperature)
    })
}

fn check_temperature(temperature: f64) -> Result<()> {
    ensure!(
        temperature > 0.0,
        "temperature must be above 0, got {temperature}"
    );
    Ok(())
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
    for (start, len) in chunks(model, targets.size1()?)? {
        let all = log_softmax(model, &hidden.narrow(0, start, len), temperature); // [len, V]
        logprobs.push(
            all.gather(1, &targets.narrow(0, start, len).unsqueeze(1), false)
                .squeeze_dim(1),
        );
        entropies.push(entropy(&all));
    }
    ensure!(
        !logprobs.is_empty(),
        "a micro-batch without response tokens"
    );
    Ok((Tensor::cat(&logprobs, 0), Tensor::cat(&entropies, 0)))
}

/// log-probabilities [len, V] -> entropies [len]
fn entropy(all: &Tensor) -> Tensor {
    -(all.exp() * all).sum_dim_intlist(-1, false, Kind::Float)
}

/// Log-probabilities of policy and reference [len, V] -> KL(policy, reference) [len]
fn kl(policy: &Tensor, reference: &Tensor) -> Tensor {
    (policy.exp() * (policy - reference)).sum_dim_intlist(-1, false, Kind::Float)
}

/// hidden [len, E] -> log-probabilities over the vocabulary, f32 [len, V].
fn log_softmax(model: &Model, hidden: &Tensor, temperature: f64) -> Tensor {
    let mut logits = model.logits(hidden);
    if temperature != 1.0 {
        logits = logits.g_div_scalar_(temperature);
    }
    logits.log_softmax(-1, Kind::Float)
}

/// Start and length of each chunk of `count` positions.
fn chunks(model: &Model, count: i64) -> Result<impl Iterator<Item = (i64, i64)>> {
    let vocab = i64::try_from(model.config().text.vocab_size)?;
    Ok(cut(count, positions_at_once(vocab, model.device())))
}

/// Positions whose logits exist at one time: as many as the device's limit allows, at least [`MIN_POSITIONS`].
#[must_use]
pub fn positions_at_once(vocab: i64, device: Device) -> i64 {
    let limit = match device {
        Device::Cpu => CPU_LOGITS,
        _ => GPU_LOGITS,
    };
    (limit / vocab).max(MIN_POSITIONS)
}

/// Start and length of pieces of `size`.
fn cut(count: i64, size: i64) -> impl Iterator<Item = (i64, i64)> {
    let starts = std::iter::successors(Some(0), move |start| Some(start + size));
    starts
        .take_while(move |start| *start < count)
        .map(move |start| (start, size.min(count - start)))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor, no_grad};

    use super::{CPU_LOGITS, Derivatives, MIN_POSITIONS, cut, entropy, kl, positions_at_once};

    /// Whatever the loss depends on: what libtorch's graph gives.
    #[test]
    fn derivatives_by_logits_are_those_of_the_graph() {
        const TEMPERATURE: f64 = 0.7;
        tch::manual_seed(3);
        let tensor = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let (logits, other) = (tensor(&[3, 7]).set_requires_grad(true), tensor(&[3, 7]));
        let targets = Tensor::from_slice(&[2_i64, 0, 6]);
        let [g, a, b] = [tensor(&[3]), tensor(&[3]), tensor(&[3])];
        let reference = other.log_softmax(-1, Kind::Float);
        for (has_entropy, has_kl) in [(false, false), (true, false), (false, true), (true, true)] {
            let all = (&logits / TEMPERATURE).log_softmax(-1, Kind::Float);
            let logprobs = all.gather(1, &targets.unsqueeze(1), false).squeeze_dim(1);
            let mut loss = logprobs * &g;
            if has_entropy {
                loss += entropy(&all) * &a;
            }
            if has_kl {
                loss += kl(&all, &reference) * &b;
            }
            let sum = loss.sum(Kind::Float);
            let expected = Tensor::run_backward(&[sum], &[&logits], false, false).remove(0);
            let derivatives = Derivatives {
                targets: targets.shallow_clone(),
                of_logprobs: g.shallow_clone(),
                of_entropies: has_entropy.then(|| a.shallow_clone()),
                of_kl: has_kl.then(|| (reference.copy(), b.shallow_clone())),
            };
            let got = no_grad(|| derivatives.by_logits(all.detach().copy(), TEMPERATURE)).unwrap();
            let difference = (got - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "{has_entropy} {has_kl}: {difference}");
        }
    }

    #[test]
    fn chunks_cover_every_position_once() {
        assert_eq!(positions_at_once(CPU_LOGITS / 500, Device::Cpu), 500);
        assert_eq!(
            cut(1100, 500).collect::<Vec<_>>(),
            [(0, 500), (500, 500), (1000, 100)]
        );
        let at_once = positions_at_once(CPU_LOGITS * 3, Device::Cpu);
        assert_eq!(
            cut(MIN_POSITIONS + 2, at_once).collect::<Vec<_>>(),
            [(0, MIN_POSITIONS), (MIN_POSITIONS, 2)]
        );
        assert_eq!(cut(7, 10).collect::<Vec<_>>(), [(0, 7)]);
        assert_eq!(cut(0, 10).count(), 0);
        // A vocabulary of 152 k on a GPU: 882 positions.
        assert_eq!(positions_at_once(152_064, Device::Cuda(0)), 882);
    }
}
