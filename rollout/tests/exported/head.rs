//! The device's head against the sampler's statistics.

use models::graph::head;
use ort::session::{IoBinding, SessionOutputs};
use rollout::sampler::{Distribution, uniform};

use super::bound::{Bound, bind, want};

/// Temperature and mass of the nucleus.
pub(crate) const SETTINGS: [(f32, f32); 4] = [(1.0, 0.95), (0.7, 0.95), (1.3, 0.99), (1.0, 0.5)];
/// Largest difference of masses, log-probabilities and entropies: the CPU provider sums up to 152 thousand f32 nearly one
/// after the other, the sampler in f64.
const TOLERANCE: f64 = 1e-4;
const VOCAB_SIZE: usize = 151_936;

const FLOATS: [&str; 8] = [
    "log_totals",
    "chosen_logprobs",
    "entropies",
    "banned_masses",
    "candidate_masses",
    "nucleus_masses",
    "nucleus_entropies",
    "renormalised_entropies",
];

/// Inputs of the head but for the logits.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) candidates: usize,
    /// The token of each row to score.
    pub(crate) chosen: Vec<usize>,
    pub(crate) banned: Vec<usize>,
}

/// What [`Head::check`] saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Rows whose nucleus is wider than the candidates.
    pub(crate) wide: usize,
    pub(crate) narrow: usize,
    pub(crate) worst: f64,
}

impl Head {
    pub(crate) fn bind(&self, io: &mut IoBinding, (temperature, p): (f32, f32)) {
        let ids = |ids: &[usize]| ids.iter().map(|&id| id as i64).collect();
        bind(io, "temperature", [1], vec![temperature]);
        bind(io, "nucleus_p", [1], vec![p]);
        bind::<i64, 1>(io, "chosen", [self.chosen.len()], ids(&self.chosen));
        let banned = self.banned();
        bind::<i64, 1>(io, "banned", [banned.len()], ids(&banned));
        for name in FLOATS {
            want(io, name);
        }
        for name in ["candidate_ids", "candidate_logits", "nucleus_sizes"] {
            want(io, name);
        }
    }

    /// At least one.
    fn banned(&self) -> Vec<usize> {
        if self.banned.is_empty() {
            vec![3]
        } else {
            self.banned.clone()
        }
    }

    /// Compares with what the sampler says of the same logits.
    pub(crate) fn check(
        &self,
        outputs: &SessionOutputs<'_>,
        logits: &[f32],
        (temperature, p): (f32, f32),
    ) -> Seen {
        let (temperature, p) = (f64::from(temperature), f64::from(p));
        let rows = self.chosen.len();
        let vocab_size = logits.len() / rows;
        let floats = |name: &str| outputs[name].try_extract_tensor::<f32>().unwrap().1;
        let ints = |name: &str| outputs[name].try_extract_tensor::<i32>().unwrap().1;
        let [ids, sizes] = ["candidate_ids", "nucleus_sizes"].map(ints);
        let candidate_logits = floats("candidate_logits");
        assert_eq!(ids.len(), rows * self.candidates);
        let mut distribution = Distribution::new();
        let mut seen = Seen::default();
        for (row, logits) in logits.chunks_exact(vocab_size).enumerate() {
            distribution.load(logits, temperature).unwrap();
            let probability = |id: usize, distribution: &Distribution| {
                let logprob: f64 = distribution.logprob(logits[id]);
                logprob.exp()
            };
            let mut order: Vec<usize> = (0..vocab_size).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a])); // the lower id of equals first
            order.truncate(self.candidates);
            let range = row * self.candidates..(row + 1) * self.candidates;
            let got: Vec<usize> = ids[range.clone()].iter().map(|&id| id as usize).collect();
            assert_eq!(got, order, "candidates of row {row}");
            let got = order.iter().map(|&id| logits[id]);
            assert!(got.eq(candidate_logits[range].iter().copied()), "row {row}");

            let mass_of = |ids: &[usize]| -> f64 {
                ids.iter().map(|&id| probability(id, &distribution)).sum()
            };
            let candidate_mass: f64 = mass_of(&order);
            let banned_mass: f64 = mass_of(&self.banned());
            let largest = f64::from(logits[order[0]]) / temperature;
            let log_total = -distribution.logprob(0.0) - largest;
            let chosen = distribution.logprob(logits[self.chosen[row]]);
            let entropy = distribution.full_entropy(logits);
            let nucleus = distribution.nucleus(logits, p);
            let mut close = |name: &str, expected: f64| {
                let got = f64::from(floats(name)[row]);
                // Log-probabilities far down are large numbers.
                let difference = (got - expected).abs() / expected.abs().max(1.0);
                assert!(
                    difference < TOLERANCE,
                    "{name} of row {row}: {got}, not {expected}"
                );
                seen.worst = seen.worst.max(difference);
            };
            close("log_totals", log_total);
            close("chosen_logprobs", chosen);
            close("entropies", entropy);
            close("banned_masses", banned_mass);
            close("candidate_masses", candidate_mass);
            if (candidate_mass - p).abs() < TOLERANCE {
                continue; // another rounding may fall on the other side
            }
            let is_wide = f64::from(floats("candidate_masses")[row]) < p;
            assert_eq!(is_wide, nucleus.size > self.candidates, "row {row}");
            if is_wide {
                seen.wide += 1;
                continue;
            }
            if nucleus.margin < TOLERANCE {
                continue; // another rounding is another set
            }
            seen.narrow += 1;
            assert_eq!(sizes[row] as usize, nucleus.size, "nucleus of row {row}");
            close("nucleus_masses", nucleus.mass);
            close("nucleus_entropies", nucleus.entropy_raw);
            close("renormalised_entropies", nucleus.entropy_renormalised);
        }
        seen
    }
}

/// Rows of logits: from flat to needle-sharp, with ties, far from zero.
fn rows(vocab_size: usize) -> Vec<f32> {
    let kinds = [
        (0.0, 0.0, false),
        (0.2, 0.0, false),
        (2.0, 0.0, true),
        (3.0, -300.0, false),
        (5.0, 20.0, false),
        (200.0, 0.0, false),
    ];
    let row = |(seed, (scale, offset, has_ties)): (u64, (f32, f32, bool))| {
        (0..vocab_size).map(move |id| {
            // A bell has the tail that a language model's row has.
            let parts = (0..4).map(|part| uniform(seed, id as u64, part, 0) as f32 - 0.5);
            let number = 4.0 * parts.sum::<f32>();
            offset + scale * if has_ties { number.round() } else { number }
        })
    };
    (0..).zip(kinds).flat_map(row).collect()
}

#[test]
fn the_devices_head_says_what_the_sampler_says() {
    let (mut wide, mut narrow) = (0, 0);
    for (vocab_size, candidates) in [(VOCAB_SIZE, 256), (VOCAB_SIZE, 3839), (500, 8), (20, 256)] {
        let graph = head::build(vocab_size, candidates).unwrap();
        let mut bound = Bound::of_bytes(&graph);
        let logits = rows(vocab_size);
        let num_rows = logits.len() / vocab_size;
        let likeliest = |row: usize| {
            let row = &logits[row * vocab_size..(row + 1) * vocab_size];
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.unwrap().0
        };
        let head = Head {
            candidates: candidates.min(vocab_size),
            chosen: (0..num_rows).map(|row| (row * 977) % vocab_size).collect(),
            banned: vec![0, 7, likeliest(3), vocab_size - 1],
        };
        for settings in SETTINGS {
            let mut io = bound.binding();
            bind(&mut io, "logits", [num_rows, vocab_size], logits.clone());
            head.bind(&mut io, settings);
            let outputs = bound.session.run_binding(&io).unwrap();
            let seen = head.check(&outputs, &logits, settings);
            println!("{vocab_size} tokens, {candidates} candidates, {settings:?}: {seen:?}");
            (wide, narrow) = (wide + seen.wide, narrow + seen.narrow);
        }
    }
    assert!(wide > 10 && narrow > 10, "{wide} wide, {narrow} narrow");
}
