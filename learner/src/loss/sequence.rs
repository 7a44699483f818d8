//! Surrogates of a whole response: one ratio for all its tokens, the weighted geometric mean of theirs.
//!
//! With token weights w, corrections c and log-ratios x = log pi - log pi_old, W = sum of w:
//!
//! ```text
//! log s = sum_t w_t x_t / W               gspo: x as it is; gmpo: each x clipped by itself
//! loss  = -(sum_t w_t c_t) f(s, A)        gspo: min(s A, clip(s) A); gmpo: s A
//! d loss / d log pi_t = -(sum_t w_t c_t) f'(s) s w_t / W
//! ```
//!
//! So a token's share of the gradient is its weight, as with a surrogate per token, and a token of weight 0 has no part in
//! the ratio either. With w = 1 and c = 1 the loss is L times the paper's, and the mean over a response's L tokens
//! is the paper's term.

use shared::config::Surrogate;

use super::LossSettings;
use super::surrogate::{Cut, Term, clipped, ratio};

/// The weighted terms of each token. Their losses are equal shares by weight, so that they sum to the response's loss.
pub(super) fn sequence_terms(
    settings: &LossSettings,
    log_ratios: &[f64],
    weights: &[f64],
    corrections: &[f64],
    advantage: f64,
) -> Vec<Term> {
    let sum: f64 = weights.iter().sum();
    if sum == 0.0 {
        return vec![Term::default(); weights.len()];
    }
    let parts: Vec<(f64, Cut)> = log_ratios
        .iter()
        .map(|&x| match settings.surrogate {
            Surrogate::Gmpo => clipped_log_ratio(settings, x, advantage),
            _ => (x, Cut::None),
        })
        .collect();
    let weighted = parts.iter().zip(weights).map(|((x, _), w)| w * x);
    let log_ratio = weighted.sum::<f64>() / sum;
    let whole = match settings.surrogate {
        Surrogate::Gmpo => {
            let (ratio, slope) = ratio(log_ratio);
            Term {
                loss: -ratio * advantage,
                derivative: -slope * advantage,
                cut: Cut::None,
            }
        }
        _ => clipped(settings, log_ratio, advantage),
    };
    let corrected: f64 = weights.iter().zip(corrections).map(|(w, c)| w * c).sum();
    let term = |((_, cut), weight): (&(f64, Cut), &f64)| {
        let share = whole.times(corrected * weight / sum);
        match cut {
            Cut::None => share,
            cut => Term {
                derivative: 0.0,
                cut: *cut,
                ..share
            },
        }
    };
    parts.iter().zip(weights).map(term).collect()
}

/// gmpo's clip of one token: sgn(A) min(sgn(A) x, sgn(A) clamp(x, -low, high)), the pessimistic side only.
fn clipped_log_ratio(settings: &LossSettings, log_ratio: f64, advantage: f64) -> (f64, Cut) {
    if advantage > 0.0 && log_ratio > settings.clip_high {
        return (settings.clip_high, Cut::High);
    }
    if advantage < 0.0 && log_ratio < -settings.clip_low {
        return (-settings.clip_low, Cut::Low);
    }
    (log_ratio, Cut::None)
}
