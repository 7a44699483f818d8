//! Against the definition in f64, over random ragged passes; and the same bits however a pass is cut.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Heads, kv heads, head dim: plain, grouped, one odd group, no multiple of 16.
const SHAPES: [(usize, usize, usize); 5] =
    [(4, 4, 32), (12, 2, 64), (7, 1, 128), (6, 3, 24), (2, 1, 8)];

/// A sequence to come: tokens of its prefix, and of its own in pieces that are read one after the other.
#[derive(Debug, Clone)]
struct Plan {
    prefix: Option<usize>, // which of the prompts
    pieces: Vec<usize>,
}

struct World {
    layout: CacheLayout,
    num_heads: usize,
    cache: Vec<Lanes>,
    next_block: i32,
}

/// All tokens of one sequence: qkv rows and angles.
#[derive(Clone)]
struct Tokens {
    qkv: Vec<Vec<f32>>,
    angles: Vec<Vec<f32>>,
}

/// A sequence with its blocks.
#[derive(Clone)]
struct Living {
    tokens: Tokens,
    prefix_blocks: Vec<i32>,
    prefix: usize,
    blocks: Vec<i32>,
    read: usize,
}

impl World {
    fn new(shape: (usize, usize, usize)) -> Self {
        let layout = CacheLayout {
            num_layers: 2,
            num_kv_heads: shape.1,
            head_dim: shape.2,
        };
        // Garbage everywhere: nothing may be read that was not written.
        let cache = vec![Lanes([1e30; 16]); 80 * layout.block_lanes()];
        Self {
            layout,
            num_heads: shape.0,
            cache,
            next_block: 0,
        }
    }

    fn tokens(&self, rng: &mut ChaCha8Rng, count: usize) -> Tokens {
        let width = (self.num_heads + 2 * self.layout.num_kv_heads) * self.layout.head_dim;
        let mut row = |len: usize, scale: f32| {
            (0..len)
                .map(|_| (rng.random::<f32>() - 0.5) * scale)
                .collect::<Vec<_>>()
        };
        Tokens {
            qkv: (0..count).map(|_| row(width, 4.0)).collect(),
            angles: (0..count)
                .map(|_| row(self.layout.head_dim / 2, 6.0))
                .collect(),
        }
    }

    fn living(&mut self, tokens: Tokens, prefix: Option<&Living>) -> Living {
        let count = blocks(tokens.qkv.len());
        let blocks = (self.next_block..).take(count).collect();
        self.next_block += i32::try_from(count).unwrap();
        Living {
            tokens,
            prefix_blocks: prefix.map_or(Vec::new(), |prefix| prefix.blocks.clone()),
            prefix: prefix.map_or(0, |prefix| prefix.tokens.qkv.len()),
            blocks,
            read: 0,
        }
    }

    /// Reads `counts[i]` more tokens of each sequence in one pass; the attended rows, sequence by sequence.
    fn pass(
        &mut self,
        sequences: &mut [&mut Living],
        counts: &[usize],
        threads: usize,
    ) -> Vec<Vec<f32>> {
        let (mut qkv, mut cos, mut sin) = (Vec::new(), Vec::new(), Vec::new());
        let (mut fields, mut tables) = (Vec::new(), Vec::new());
        let mut first = 0;
        for (sequence, &count) in sequences.iter_mut().zip(counts) {
            fields.extend(
                [first, count, sequence.prefix, sequence.read].map(|n| i32::try_from(n).unwrap()),
            );
            for token in sequence.read..sequence.read + count {
                qkv.extend_from_slice(&sequence.tokens.qkv[token]);
                cos.extend(sequence.tokens.angles[token].iter().map(|a| a.cos()));
                sin.extend(sequence.tokens.angles[token].iter().map(|a| a.sin()));
            }
            first += count;
            sequence.read += count;
            tables.push([sequence.prefix_blocks.clone(), sequence.blocks.clone()].concat());
        }
        let width = tables.iter().map(Vec::len).max().unwrap();
        let block_table: Vec<i32> = tables
            .iter()
            .flat_map(|table| {
                table
                    .iter()
                    .copied()
                    .chain(std::iter::repeat(0))
                    .take(width)
                    .collect::<Vec<_>>()
            })
            .collect();
        let inputs = Inputs {
            layer: 1,
            num_heads: self.num_heads,
            qkv: &qkv,
            cos: &cos,
            sin: &sin,
            sequences: &fields,
            block_table: &block_table,
        };
        let row = self.num_heads * self.layout.head_dim;
        let mut out = vec![f32::NAN; first * row];
        PagedAttention::new(threads).run(
            &self.layout,
            &inputs,
            &mut self.cache,
            &mut out,
            &|count, each| {
                std::thread::scope(|scope| {
                    (0..count).for_each(|worker| {
                        scope.spawn(move || each(worker));
                    });
                });
            },
        );
        out.chunks(row).map(<[f32]>::to_vec).collect()
    }

    /// The definition: token `index` of `own` after all of `prefix`.
    fn expected(&self, prefix: Option<&Tokens>, own: &Tokens, index: usize) -> Vec<f64> {
        let (dim, kv_heads) = (self.layout.head_dim, self.layout.num_kv_heads);
        let rotated = |tokens: &Tokens, token: usize, part: usize| -> Vec<f64> {
            let x = &tokens.qkv[token][part * dim..(part + 1) * dim];
            let half = dim / 2;
            (0..dim)
                .map(|d| {
                    let angle = f64::from(tokens.angles[token][d % half]);
                    let (a, b) = (f64::from(x[d]), f64::from(x[(d + half) % dim]));
                    a * angle.cos() + if d < half { -b } else { b } * angle.sin()
                })
                .collect()
        };
        let mut seen: Vec<(&Tokens, usize)> = Vec::new();
        if let Some(prefix) = prefix {
            seen.extend((0..prefix.qkv.len()).map(|token| (prefix, token)));
        }
        seen.extend((0..=index).map(|token| (own, token)));
        let mut out = Vec::new();
        for head in 0..self.num_heads {
            let kv_head = head / (self.num_heads / kv_heads);
            let query = rotated(own, index, head);
            let scores: Vec<f64> = seen
                .iter()
                .map(|(tokens, token)| {
                    let key = rotated(tokens, *token, self.num_heads + kv_head);
                    query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt()
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..dim {
                let value = |(tokens, token): &(&Tokens, usize)| {
                    f64::from(tokens.qkv[*token][(self.num_heads + kv_heads + kv_head) * dim + d])
                };
                out.push(
                    seen.iter()
                        .zip(&weights)
                        .map(|(at, weight)| value(at) * weight)
                        .sum::<f64>()
                        / total,
                );
            }
        }
        out
    }
}

fn blocks(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK)
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (
        prop::option::of(0_usize..2),
        prop::collection::vec(1_usize..40, 1..4),
    );
    prop::collection::vec(
        plan.prop_map(|(prefix, pieces)| Plan { prefix, pieces }),
        1..6,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Two prompts are read, then sequences after them (or after nothing) in pieces, side by side; every row is what the
    /// definition gives, and bit for bit what the sequence gives when it is read alone and token by token.
    #[test]
    fn attention_is_the_definition_however_the_pass_is_cut(
        shape in 0..SHAPES.len(), prompts in [1_usize..70, 1_usize..40], plans in plans(), seed: u64, threads in 1_usize..4,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::new(SHAPES[shape]);
        let mut prompts: Vec<Living> = prompts
            .iter()
            .map(|&count| { let tokens = world.tokens(&mut rng, count); world.living(tokens, None) })
            .collect();
        let counts: Vec<usize> = prompts.iter().map(|prompt| prompt.tokens.qkv.len()).collect();
        let mut both: Vec<&mut Living> = prompts.iter_mut().collect();
        world.pass(&mut both, &counts, threads);
        let prompts: Vec<Living> = prompts.clone();

        let mut sequences: Vec<Living> = plans
            .iter()
            .map(|plan| {
                let tokens = world.tokens(&mut rng, plan.pieces.iter().sum());
                world.living(tokens, plan.prefix.map(|prompt| &prompts[prompt]))
            })
            .collect();
        let alone = sequences.clone();
        let mut together: Vec<Vec<Vec<f32>>> = vec![Vec::new(); plans.len()];
        for piece in 0..3 {
            let mut now: Vec<(usize, &mut Living)> = sequences
                .iter_mut()
                .enumerate()
                .filter(|(index, _)| piece < plans[*index].pieces.len())
                .collect();
            if now.is_empty() { break; }
            let counts: Vec<usize> = now.iter().map(|(index, _)| plans[*index].pieces[piece]).collect();
            let indices: Vec<usize> = now.iter().map(|(index, _)| *index).collect();
            let mut rows = world
                .pass(&mut now.iter_mut().map(|(_, living)| &mut **living).collect::<Vec<_>>(), &counts, threads)
                .into_iter();
            for (index, count) in indices.into_iter().zip(counts) {
                together[index].extend(rows.by_ref().take(count));
            }
        }
        for (index, mut living) in alone.into_iter().enumerate() {
            let prefix = plans[index].prefix.map(|prompt| &prompts[prompt].tokens);
            prop_assert_eq!(together[index].len(), living.tokens.qkv.len());
            for (token, read) in together[index].iter().enumerate() {
                let row = world.pass(&mut [&mut living], &[1], 1).remove(0);
                prop_assert_eq!(&row, read, "sequence {} token {}", index, token);
                let expected = world.expected(prefix, &living.tokens, token);
                for (got, expected) in row.iter().zip(expected) {
                    prop_assert!((f64::from(*got) - expected).abs() < 2e-5, "{} instead of {}", got, expected);
                }
            }
        }
    }
}

#[test]
fn rows_of_a_group_share_a_part_and_threads_get_several() {
    let blocks = [3, 4];
    let sequence = |first: usize, prefix: usize| Sequence {
        first,
        num_new: 1,
        prefix,
        own: 5,
        prefix_blocks: &blocks[..prefix.div_ceil(BLOCK)],
        own_blocks: &blocks,
    };
    let mut sequences: Vec<_> = (0..64).map(|first| sequence(first, 40)).collect();
    let eights = parts(&sequences, 6, 2);
    assert!(
        eights
            .iter()
            .all(|part| part.sequences.len() == 8 && part.tokens == (0..1))
    );
    assert_eq!(parts(&sequences, 6, 8).len(), 32);
    sequences[10] = sequence(10, 0);
    assert_eq!(
        parts(&sequences, 6, 2)
            .iter()
            .map(|part| part.sequences.len())
            .sum::<usize>(),
        64
    );
    let long = Sequence {
        num_new: 20,
        ..sequence(0, 0)
    };
    let tokens: Vec<_> = parts(&[long], 6, 2)
        .into_iter()
        .map(|part| part.tokens)
        .collect();
    assert_eq!(tokens, [0..8, 8..16, 16..20]);
}
