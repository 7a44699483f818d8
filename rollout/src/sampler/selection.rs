//! The most likely tokens of a row: the fewest whose weights reach a mass, or a given number of them.
//!
//! Tokens are ordered by logit, equal ones by id. A vocabulary is never sorted: the few candidates above a threshold are,
//! and where the mass is spread over many tokens, passes over the row close in on the logit at which it is reached.

use std::cmp::Ordering;

use super::row::{Candidate, Gather, Part, Parts, Row};

/// Candidates that are sorted rather than narrowed down further.
const FEW: usize = 96;
/// Chunks that a first look may visit, a quarter of them at most.
const LOOK_CHUNKS: usize = 96;
/// How far below the top logit the first looks reach, as weights: a sharp row has its nucleus there.
const LOOKS: [f64; 2] = [1e-2, 1e-4];
/// How far the guesses stand from the interpolated crossing, as a share of the bracket: the more the longer the line.
const WIDE: f64 = 1.0 / 8.0;
const NARROW: f64 = 1.0 / 32.0;
/// A part of the mass that counts as nothing when the crossing is guessed.
const LEAST_SHARE: f64 = 1e-6;
/// Tokens from which the crossing is estimated.
const SAMPLE: usize = 256;

/// A nucleus: all of `above`, and the first `size` candidates, which are less likely.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection {
    pub(super) above: Part,
    pub(super) size: usize,
}

impl Row<'_> {
    /// The fewest most likely tokens that reach `target` of the row's weight `total`; every one when rounding leaves them
    /// short of it. `candidates` is overwritten.
    pub(super) fn select_mass(
        &self,
        target: f64,
        total: f64,
        candidates: &mut Vec<Candidate>,
    ) -> Selection {
        match self.select_sharp(target, candidates) {
            Some(size) => Selection {
                above: Part::NOTHING,
                size,
            },
            None => self.select_wide(target, total, candidates),
        }
    }

    /// [`Self::select_mass`] where few tokens hold the mass: how many of the candidates it is.
    pub(super) fn select_sharp(
        &self,
        target: f64,
        candidates: &mut Vec<Candidate>,
    ) -> Option<usize> {
        for look in LOOKS {
            #[expect(clippy::cast_possible_truncation, reason = "a threshold is an f32")]
            let from = (f64::from(self.top) + look.ln() * self.temperature) as f32;
            // Counted in the vectors' own width.
            let visits: u32 = self.tops.iter().map(|&top| u32::from(top >= from)).sum();
            if visits as usize > LOOK_CHUNKS.min(self.tops.len() / 4) {
                break;
            }
            self.gather(from, f32::INFINITY, f64::INFINITY, candidates);
            if mass(candidates) >= target {
                return Some(select_mass(candidates, target));
            }
        }
        None
    }

    /// Whether a token is among the fewest most likely ones that reach `target`. `candidates` is overwritten.
    pub(super) fn is_selected(
        &self,
        id: u32,
        target: f64,
        candidates: &mut Vec<Candidate>,
    ) -> bool {
        let Some(&logit) = self.logits.get(id as usize) else {
            return false;
        };
        let [from, above] = self.arch.dispatch(Parts {
            row: *self,
            pivots: [logit, logit.next_up()],
        });
        if above.mass >= target || from.mass < target || from.size - above.size == 1 {
            return above.mass < target;
        }
        // Some of the tokens with this logit are in: those with the lowest ids.
        let missing = target - above.mass;
        self.gather(logit, logit.next_up(), missing, candidates);
        candidates.iter().any(|candidate| candidate.id == id)
    }

    /// [`Self::select_mass`] where many tokens share the mass: the logit at which it is reached is bracketed by passes
    /// over the row, until few tokens are left between.
    pub(super) fn select_wide(
        &self,
        target: f64,
        total: f64,
        candidates: &mut Vec<Candidate>,
    ) -> Selection {
        let mut low = Part {
            logit: self.floor,
            mass: total,
            size: self.logits.len(),
        };
        let mut high = Part {
            logit: self.tops.iter().copied().fold(f32::MIN, f32::max).next_up(),
            ..Part::NOTHING
        };
        let mut pivots = self.estimate(target / total);
        let mut margin = WIDE;
        while low.size - high.size > FEW && low.logit.next_up() < high.logit {
            let left = low.size - high.size;
            let (least, most) = (low.logit.next_up(), high.logit.next_down());
            let pivots_inside = pivots.map(|pivot| pivot.clamp(least, most));
            let parts = Parts {
                row: *self,
                pivots: pivots_inside,
            };
            for part in self.arch.dispatch(parts) {
                if part.mass >= target && part.logit > low.logit {
                    low = part;
                } else if part.mass < target && part.logit < high.logit {
                    high = part;
                }
            }
            // A guess that did not help is followed by one that always does.
            pivots = if (low.size - high.size) * 2 <= left {
                interpolate(&low, &high, target, total, margin)
            } else {
                trisect(low.logit, high.logit)
            };
            margin = NARROW;
        }
        let missing = target - high.mass;
        let size = if low.logit.next_up() < high.logit {
            self.gather(low.logit, high.logit, f64::INFINITY, candidates);
            select_mass(candidates, missing)
        } else {
            // Equal logits: in the order of their ids already.
            self.gather(low.logit, high.logit, missing, candidates);
            candidates.len()
        };
        Selection { above: high, size }
    }

    /// Two logits around the one at which the mass of the row reaches `share`, from a sample of its tokens.
    fn estimate(&self, share: f64) -> [f32; 2] {
        let step = self.logits.len().div_ceil(SAMPLE);
        // Whole numbers in the order of the logits: they sort faster than floats.
        let mut sample = [(0, 0); SAMPLE];
        let mut size = 0;
        for (key, index) in sample.iter_mut().zip((0..self.logits.len()).step_by(step)) {
            *key = (rank(self.logits[index]), index);
            size += 1;
        }
        let sample = &mut sample[..size];
        sample.sort_unstable_by_key(|&key| std::cmp::Reverse(key));
        let weight = |&(_, index): &(u32, usize)| f64::from(self.weights[index]);
        let target = share * sample.iter().map(weight).sum::<f64>();
        let mut sum = 0.0;
        let crossing = sample.iter().position(|key| {
            sum += weight(key);
            sum >= target
        });
        let crossing = crossing.unwrap_or(size - 1);
        // About three standard deviations of a share of the sample to either side.
        let margin = SAMPLE / 12;
        let around = [crossing + margin, crossing.saturating_sub(margin)];
        around.map(|place| self.logits[sample[place.min(size - 1)].1])
    }

    /// The `count` most likely tokens that have any weight, in no order. `bans` tokens at most have lost theirs.
    pub(super) fn select_count(
        &self,
        count: usize,
        bans: usize,
        candidates: &mut Vec<Candidate>,
        scratch: &mut Vec<f32>,
    ) {
        // The largest logits of count + bans chunks are that many tokens, so the answer lies from the least of them on.
        let rank = count.saturating_add(bans);
        let from = if rank < self.tops.len() {
            scratch.clear();
            scratch.extend_from_slice(self.tops);
            *scratch
                .select_nth_unstable_by(rank, |a, b| b.total_cmp(a))
                .1
        } else {
            f32::MIN
        };
        self.gather(from, f32::INFINITY, f64::INFINITY, candidates);
        if count < candidates.len() {
            candidates.select_nth_unstable_by(count, likelier);
            candidates.truncate(count);
        }
    }

    /// Overwrites `candidates` with the tokens of some weight with logits in `from`..`below`, in the order of their ids, until
    /// they reach `enough`.
    fn gather(&self, from: f32, below: f32, enough: f64, candidates: &mut Vec<Candidate>) {
        candidates.clear();
        self.arch.dispatch(Gather {
            row: *self,
            from,
            below,
            enough,
            candidates,
        });
    }
}

/// A number that orders like a logit.
fn rank(logit: f32) -> u32 {
    let bits = logit.to_bits();
    if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

/// Two logits close to that at which the row's mass is `target`, which lies between those of the two parts. Mass falls off
/// exponentially at either end of a row: so the line goes through the logarithm of what the smaller end is made of.
#[expect(clippy::cast_possible_truncation, reason = "a guess")]
fn interpolate(low: &Part, high: &Part, target: f64, total: f64, margin: f64) -> [f32; 2] {
    let (from, to) = (f64::from(low.logit), f64::from(high.logit));
    let small = |mass: f64| {
        let mass = if target * 2.0 > total {
            total - mass
        } else {
            mass
        };
        mass.max(total * LEAST_SHARE).ln()
    };
    let (at_low, at_high) = (small(low.mass), small(high.mass));
    let share = (at_low - small(target)) / (at_low - at_high);
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.5
    };
    let middle = from + share * (to - from);
    let margin = (to - from) * margin;
    [(middle - margin) as f32, (middle + margin) as f32]
}

/// Two numbers that split the f32 between two others in equal parts, whatever their magnitudes.
fn trisect(low: f32, high: f32) -> [f32; 2] {
    // Bits with the sign folded in order like the numbers; folding twice gives the bits again.
    let fold = |bits: i32| bits ^ ((bits >> 31) & i32::MAX);
    let order = |number: f32| i64::from(fold(number.to_bits().cast_signed()));
    let (from, to) = (order(low), order(high));
    [1, 2].map(|part| {
        let between = from + (to - from) * part / 3;
        let between = i32::try_from(between).unwrap_or_default(); // it lies between two i32
        f32::from_bits(fold(between).cast_unsigned())
    })
}

/// Moves the most likely candidates to the front and returns how many it takes to reach `target` (all of them when none do).
/// Expected time linear in the number of candidates: each round selects around a pivot and goes on in one side.
pub(super) fn select_mass(candidates: &mut [Candidate], target: f64) -> usize {
    let (mut low, mut high) = (0, candidates.len());
    let mut before = 0.0; // mass of [..low], all of it in
    while high - low > 32 {
        // A nucleus is mostly short: the first pivot stands near the front.
        let pivot = if low == 0 { 31 } else { (high - low) / 2 };
        let (left, middle, _) = candidates[low..high].select_nth_unstable_by(pivot, likelier);
        let left_mass = mass(left);
        if before + left_mass >= target {
            high = low + pivot;
            if low == 0 {
                break; // at most 31 are left to sort
            }
        } else {
            before += left_mass + f64::from(middle.weight);
            low += pivot + 1;
            if before >= target {
                return low;
            }
        }
    }
    candidates[low..high].sort_unstable_by(likelier);
    for (index, candidate) in candidates[low..high].iter().enumerate() {
        before += f64::from(candidate.weight);
        if before >= target {
            return low + index + 1;
        }
    }
    high
}

/// The weight of some candidates.
pub(super) fn mass(candidates: &[Candidate]) -> f64 {
    candidates
        .iter()
        .map(|candidate| f64::from(candidate.weight))
        .sum()
}

/// The larger logit first, then the lower id.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    let by_logit = b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal); // finite, so there is an order
    by_logit.then(a.id.cmp(&b.id))
}
