//! Passes over one row of logits, each written for the widest vectors that the machine has.
//!
//! Every sum runs in the same 64 lanes whatever the vectors' width, so a row gives the same numbers on every machine.

// V vocabulary; C chunks of CHUNK tokens; the last one may be short.

use pulp::{Arch, NullaryFnOnce};

use super::exponential::Exponential;

/// Tokens that are compared at once.
const LANES: usize = 16;
/// Tokens whose largest logit is remembered, so that a search can skip them.
pub(super) const CHUNK: usize = 64;
/// Tokens per partial sum of the weights. The draw walks the sums first, then one block.
pub(super) const BLOCK: usize = 1024;

/// The largest logit of each chunk, into `tops` [C]; `false` when a logit is not finite.
pub(super) struct Tops<'a> {
    pub(super) logits: &'a [f32],
    pub(super) tops: &'a mut Vec<f32>,
}

// The compiler makes vectors of what is inlined into the body of a pass, and of nothing else: hence types, not closures.
impl NullaryFnOnce for Tops<'_> {
    type Output = bool;

    #[inline(always)]
    fn call(self) -> bool {
        // The bits of a magnitude order like the magnitude, with infinity and NaN at the end.
        let mut magnitudes = [0_u32; LANES];
        let (chunks, rest) = self.logits.as_chunks::<CHUNK>();
        let rest = (!rest.is_empty()).then(|| padded(rest, f32::MIN));
        self.tops.resize(self.logits.len().div_ceil(CHUNK), 0.0);
        for (chunk, top) in chunks.iter().chain(&rest).zip(self.tops) {
            *top = chunk_top(chunk, &mut magnitudes);
        }
        let largest = magnitudes.iter().copied().fold(0, u32::max);
        largest < f32::INFINITY.to_bits()
    }
}

/// The weights of `logits` [V] into `weights` [V], and the sums of their blocks.
pub(super) struct Weigh<'a> {
    pub(super) exponential: Exponential,
    pub(super) logits: &'a [f32],
    pub(super) weights: &'a mut Vec<f32>,
    pub(super) block_sums: &'a mut Vec<f64>,
}

impl NullaryFnOnce for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let num_blocks = self.logits.len().div_ceil(BLOCK);
        self.weights.resize(self.logits.len(), 0.0);
        self.block_sums.resize(num_blocks, 0.0);
        let is_ordinary = self.exponential.is_ordinary();
        let blocks = self
            .logits
            .chunks(BLOCK)
            .zip(self.weights.chunks_mut(BLOCK));
        for ((logits, weights), sum) in blocks.zip(self.block_sums) {
            if is_ordinary {
                for (weight, &logit) in weights.iter_mut().zip(logits) {
                    *weight = self.exponential.vectored(logit);
                }
            } else {
                for (weight, &logit) in weights.iter_mut().zip(logits) {
                    *weight = self.exponential.plain(logit);
                }
            }
            *sum = sum_of(weights);
        }
    }
}

/// One candidate of a selection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) logit: f32,
    pub(super) weight: f32,
    pub(super) id: u32,
}

/// Sets the weights of logits below `from` to 0, but for `others`, and sums the blocks again.
pub(super) struct Keep<'a> {
    pub(super) logits: &'a [f32],
    pub(super) weights: &'a mut [f32],
    pub(super) block_sums: &'a mut [f64],
    pub(super) from: f32,
    pub(super) others: &'a [Candidate],
}

impl NullaryFnOnce for Keep<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let from = self.from;
        for (weight, &logit) in self.weights.iter_mut().zip(self.logits) {
            *weight = weight_if(logit >= from, *weight);
        }
        for other in self.others {
            self.weights[other.id as usize] = other.weight;
        }
        for (sum, weights) in self.block_sums.iter_mut().zip(self.weights.chunks(BLOCK)) {
            *sum = sum_of(weights);
        }
    }
}

/// The sum of one block of weights.
#[inline(always)]
pub(super) fn sum_of(block: &[f32]) -> f64 {
    let mut sums = Sums::ZERO;
    let (chunks, rest) = block.as_chunks::<CHUNK>();
    for chunk in chunks {
        for (sum, &weight) in sums.0.iter_mut().zip(chunk) {
            *sum += f64::from(weight);
        }
    }
    for (sum, &weight) in sums.0.iter_mut().zip(rest) {
        *sum += f64::from(weight);
    }
    sums.total()
}

/// The tokens whose logit is at least `logit`: the upper part of a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Part {
    /// Its least logit.
    pub(super) logit: f32,
    /// The weight of its tokens.
    pub(super) mass: f64,
    /// How many tokens it has, banned ones included.
    pub(super) size: usize,
}

impl Part {
    /// No token.
    pub(super) const NOTHING: Self = Self {
        logit: f32::INFINITY,
        mass: 0.0,
        size: 0,
    };
}

/// The parts from `pivots` on, the lower one first.
pub(super) struct Parts<'a> {
    pub(super) row: Row<'a>,
    pub(super) pivots: [f32; 2],
}

impl NullaryFnOnce for Parts<'_> {
    type Output = [Part; 2];

    #[inline(always)]
    fn call(self) -> [Part; 2] {
        let [low, high] = self.pivots;
        let (mut low_sums, mut high_sums) = (Sums::ZERO, Sums::ZERO);
        let (mut low_sizes, mut high_sizes) = ([0_u32; CHUNK], [0_u32; CHUNK]);
        let rest = self.row.rest();
        for chunk in self.row.chunks_from(low, &rest) {
            for lane in 0..CHUNK {
                let (logit, weight) = (chunk.logits[lane], chunk.weights[lane]);
                low_sums.0[lane] += f64::from(weight_if(logit >= low, weight));
                high_sums.0[lane] += f64::from(weight_if(logit >= high, weight));
                low_sizes[lane] += u32::from(logit >= low);
                high_sizes[lane] += u32::from(logit >= high);
            }
        }
        let part = |logit, sums: Sums, sizes: [u32; CHUNK]| Part {
            logit,
            mass: sums.total(),
            size: sizes.iter().sum::<u32>() as usize,
        };
        [
            part(low, low_sums, low_sizes),
            part(high, high_sums, high_sizes),
        ]
    }
}

/// Collects the tokens of some weight with logits in `from`..`below`, in the order of their ids, until they reach `enough`.
pub(super) struct Gather<'a> {
    pub(super) row: Row<'a>,
    pub(super) from: f32,
    pub(super) below: f32,
    pub(super) enough: f64,
    pub(super) candidates: &'a mut Vec<Candidate>,
}

impl NullaryFnOnce for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (from, below) = (self.from, self.below);
        let mut mass = 0.0;
        let rest = self.row.rest();
        for chunk in self.row.chunks_from(from, &rest) {
            let (logits, _) = chunk.logits.as_chunks::<LANES>();
            let (weights, _) = chunk.weights.as_chunks::<LANES>();
            let groups = logits.iter().zip(weights);
            for (start, (logits, weights)) in (chunk.first..).step_by(LANES).zip(groups) {
                // Most groups have none.
                let mut is_any = false;
                for &logit in logits {
                    is_any |= (logit >= from) & (logit < below);
                }
                if !is_any {
                    continue;
                }
                for ((id, &logit), &weight) in (start..).zip(logits).zip(weights) {
                    if logit >= from && logit < below && weight > 0.0 {
                        self.candidates.push(Candidate { logit, weight, id });
                        mass += f64::from(weight);
                        if mass >= self.enough {
                            return;
                        }
                    }
                }
            }
        }
    }
}

/// The sum of weight * (logit - top logit) over the logits from `from` on.
pub(super) struct Moment<'a> {
    pub(super) row: Row<'a>,
    pub(super) from: f32,
}

impl NullaryFnOnce for Moment<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let (from, top) = (self.from, f64::from(self.row.top));
        let mut sums = Sums::ZERO;
        let rest = self.row.rest();
        for chunk in self.row.chunks_from(from, &rest) {
            for lane in 0..CHUNK {
                let (logit, weight) = (chunk.logits[lane], chunk.weights[lane]);
                let weight = weight_if(logit >= from, weight);
                sums.0[lane] += f64::from(weight) * (f64::from(logit) - top);
            }
        }
        sums.total()
    }
}

/// A row of logits [V] with its weights [V] (0 where banned) and the largest logit of each chunk [C].
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) arch: Arch,
    pub(super) logits: &'a [f32],
    pub(super) weights: &'a [f32],
    pub(super) tops: &'a [f32],
    /// The logit of weight 1, and that up to which weights are 0.
    pub(super) top: f32,
    pub(super) floor: f32,
    pub(super) temperature: f64,
}

/// The tokens from `first` on.
struct Chunk<'a> {
    first: u32,
    logits: &'a [f32; CHUNK],
    weights: &'a [f32; CHUNK],
}

impl<'a> Row<'a> {
    /// What is left behind the whole chunks, padded with tokens of no weight and below every pivot.
    #[inline(always)]
    fn rest(&self) -> ([f32; CHUNK], [f32; CHUNK]) {
        let (_, logits) = self.logits.as_chunks::<CHUNK>();
        let (_, weights) = self.weights.as_chunks::<CHUNK>();
        (padded(logits, f32::MIN), padded(weights, 0.0))
    }

    /// The chunks with a logit of at least `from`.
    #[inline(always)]
    fn chunks_from<'b: 'a>(
        &self,
        from: f32,
        rest: &'b ([f32; CHUNK], [f32; CHUNK]),
    ) -> impl Iterator<Item = Chunk<'a>> {
        let (logits, _) = self.logits.as_chunks::<CHUNK>();
        let (weights, _) = self.weights.as_chunks::<CHUNK>();
        let tops = (0_u32..).step_by(CHUNK).zip(self.tops).enumerate();
        tops.filter(move |&(_, (_, &top))| top >= from)
            .map(move |(index, (first, _))| Chunk {
                first,
                logits: logits.get(index).unwrap_or(&rest.0),
                weights: weights.get(index).unwrap_or(&rest.1),
            })
    }
}

#[inline(always)]
fn chunk_top(chunk: &[f32; CHUNK], magnitudes: &mut [u32; LANES]) -> f32 {
    let mut largest = [f32::MIN; LANES];
    let (groups, _) = chunk.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            let logit = group[lane];
            largest[lane] = larger(logit, largest[lane]);
            magnitudes[lane] = magnitudes[lane].max(logit.to_bits() & (u32::MAX >> 1));
        }
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            largest[lane] = larger(largest[lane], largest[lane + half]);
        }
    }
    largest[0]
}

/// `weight` or 0, as a mask of bits: of a condition the compiler makes sixteen branches.
#[inline(always)]
fn weight_if(is_in: bool, weight: f32) -> f32 {
    f32::from_bits(weight.to_bits() & 0_u32.wrapping_sub(u32::from(is_in)))
}

/// What the vector unit does in one instruction (`f32::max` minds NaN).
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn padded(rest: &[f32], with: f32) -> [f32; CHUNK] {
    let mut chunk = [with; CHUNK];
    chunk[..rest.len()].copy_from_slice(rest);
    chunk
}

/// One partial sum per token of a chunk; aligned, so that no vector of them straddles two cache lines.
#[repr(align(64))]
struct Sums([f64; CHUNK]);

impl Sums {
    const ZERO: Self = Self([0.0; CHUNK]);

    #[inline(always)]
    fn total(mut self) -> f64 {
        for half in [32, 16, 8, 4, 2, 1] {
            for lane in 0..half {
                self.0[lane] += self.0[lane + half];
            }
        }
        self.0[0]
    }
}
