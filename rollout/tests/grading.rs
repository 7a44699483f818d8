//! The verifier on judged cases: those of tests/data/grading, or the file that GRADING_CASES names; and on what nobody judged.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rollout::reward::{Verifier, boxed, compare, compat_boxed, compat_equivalent, is_well_formed};
use serde_json::Value;
use shared::config::{FormatRule, VerifierMode};

const FILES: [&str; 3] = ["cases.jsonl", "more_cases.jsonl", "own_cases.jsonl"];

fn cases() -> Vec<Value> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/grading");
    let paths = match std::env::var_os("GRADING_CASES") {
        Some(path) => vec![PathBuf::from(path)],
        None => FILES.map(|name| folder.join(name)).to_vec(),
    };
    let lines = paths.iter().flat_map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect()
}

#[derive(Default)]
struct Tally {
    cases: usize,
    false_positives: usize,
    false_negatives: usize,
}

/// Accuracy, false positives and false negatives per category against the key `truth`; the total.
fn table(mode: VerifierMode, truth: &str) -> Tally {
    let verifier = Verifier::new(mode, FormatRule::NoisyRollout, 0);
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for case in cases() {
        let Some(expected) = case[truth].as_bool() else {
            continue;
        };
        let text = |key: &str| case[key].as_str().unwrap();
        let verdict = if case["mode"] == "response" {
            verifier.verify(text("prediction"), text("answer"))
        } else {
            verifier.grade(text("prediction"), text("answer"))
        };
        let category = case["category"].as_str().unwrap_or("-");
        let tally = tallies.entry(category.to_owned()).or_default();
        tally.cases += 1;
        tally.false_positives += usize::from(verdict.is_right && !expected);
        tally.false_negatives += usize::from(!verdict.is_right && expected);
        if verdict.is_right != expected {
            println!(
                "{category}: {:?} for {:?} should be {expected}",
                text("prediction"),
                text("answer")
            );
        }
    }
    let mut total = Tally::default();
    for (category, tally) in &tallies {
        print_tally(category, tally);
        total.cases += tally.cases;
        total.false_positives += tally.false_positives;
        total.false_negatives += tally.false_negatives;
    }
    print_tally("all", &total);
    total
}

fn print_tally(name: &str, tally: &Tally) {
    let Tally {
        cases,
        false_positives,
        false_negatives,
    } = tally;
    let right = cases - false_positives - false_negatives;
    #[expect(clippy::cast_precision_loss, reason = "counts for people")]
    let accuracy = 100.0 * right as f64 / *cases as f64;
    println!(
        "{name:<24} {right:>5} of {cases:<5} {accuracy:>5.1} %  false positives {false_positives:<3} false negatives {false_negatives}"
    );
}

#[test]
fn robust_on_judged_cases() {
    let total = table(VerifierMode::Robust, "expected");
    if std::env::var_os("GRADING_CASES").is_none() {
        assert!(total.cases > 1000);
        assert_eq!(total.false_positives, 0);
        assert!(total.false_negatives * 100 <= total.cases);
    }
}

#[test]
fn compat_on_what_mathruler_said() {
    let total = table(VerifierMode::Compat, "expected_mathruler");
    if std::env::var_os("GRADING_CASES").is_none() {
        let wrong = total.false_positives + total.false_negatives;
        assert!(
            total.cases > 1000 && wrong * 50 <= total.cases,
            "{wrong} wrong"
        );
    }
}

/// A small generator, so that a failure can be run again from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

const PIECES: [&str; 72] = [
    "1",
    "2",
    "07",
    "10",
    "9999999",
    "0",
    ".",
    ",",
    "x",
    "y",
    "e",
    "i",
    "m",
    "A",
    "\\pi",
    "π",
    "\\frac",
    "\\dfrac",
    "\\sqrt",
    "√",
    "[3]",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "^",
    "_",
    "+",
    "-",
    "/",
    "*",
    "=",
    "<",
    ">",
    "\\le",
    "\\pm",
    "±",
    "\\circ",
    "°",
    "%",
    "\\%",
    "\\text{",
    " cm",
    " m",
    "\\sin",
    "\\log",
    "\\ln",
    "\\arctan",
    "\\{",
    "\\}",
    " ",
    "\\\\",
    "&",
    ":",
    "|",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "\\boxed{",
    "\\fbox{",
    "\\angle",
    "\\infty",
    "\\cup",
    "\\in",
    " and ",
    " or ",
    "!",
    "²",
    "\\overline{3}",
    "\\binom",
    "\\approx",
];

/// A case's text, or a mutation of it: pieces put in, taken out, doubled, swapped with another text's; or bytes.
fn mutate(random: &mut Random, texts: &[String]) -> String {
    if random.below(16) == 0 {
        let bytes: Vec<u8> = (0..random.below(64))
            .map(|_| u8::try_from(random.next() & 0xff).unwrap())
            .collect();
        return String::from_utf8_lossy(&bytes).into_owned();
    }
    let mut chars: Vec<char> = random.pick(texts).chars().collect();
    for _ in 0..random.below(5) {
        let at = random.below(chars.len() + 1);
        let end = (at + random.below(12)).min(chars.len());
        match random.below(6) {
            0 | 1 => {
                let piece = random.pick(&PIECES);
                chars.splice(at..at, piece.chars());
            }
            2 => {
                chars.drain(at..end);
            }
            3 => {
                let part = chars[at..end].to_vec();
                let times = 1 + random.below(30);
                for _ in 0..times {
                    chars.splice(at..at, part.iter().copied());
                }
            }
            4 => {
                let other: Vec<char> = random.pick(texts).chars().collect();
                let from = random.below(other.len() + 1);
                let to = (from + random.below(20)).min(other.len());
                chars.splice(at..end, other[from..to].iter().copied());
            }
            _ => {
                if let Some(c) = chars.get_mut(at) {
                    *c =
                        char::from_u32(u32::try_from(random.below(0x3000)).unwrap()).unwrap_or('?');
                }
            }
        }
    }
    chars.truncate(4000);
    chars.into_iter().collect()
}

/// Time of `work`; the least of some runs when it seems to be more than `most`, since the machine does other things too.
fn cost(most: Duration, mut work: impl FnMut()) -> Duration {
    let mut once = || {
        let begin = Instant::now();
        work();
        begin.elapsed()
    };
    let first = once();
    if first <= most {
        return first;
    }
    (0..5).map(|_| once()).min().unwrap_or(first)
}

/// FUZZ_SECONDS=600 cargo test -p rollout --release --test grading fuzz_verifier -- --ignored --nocapture
///
/// No panic, the same verdict twice, a text equal to itself however it was cut, the work within its fuel; and numbers, which
/// have no units and no names, compare alike from both sides.
#[test]
#[ignore = "runs for FUZZ_SECONDS"]
fn fuzz_verifier() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let limit = Duration::from_secs(number("FUZZ_SECONDS", 10));
    let seed = number("FUZZ_SEED", 1);
    let texts: Vec<String> = cases()
        .iter()
        .flat_map(|case| ["prediction", "answer"].map(|key| case[key].as_str().unwrap().to_owned()))
        .collect();
    let mut random = Random(seed);
    let start = Instant::now();
    let (mut num_inputs, mut num_equal, mut most_fuel) = (0_u64, 0_u64, 0);
    let (mut slowest, mut slowest_input) = (Duration::ZERO, String::new());
    while start.elapsed() < limit {
        let (a, b) = (mutate(&mut random, &texts), mutate(&mut random, &texts));
        let b = if random.below(4) == 0 {
            random.pick(&texts).clone()
        } else {
            b
        };
        let verdict = compare(&a, &b, 1);
        let elapsed = cost(slowest, || {
            let _ = compare(&a, &b, 1);
        });
        if elapsed > slowest {
            (slowest, slowest_input) = (elapsed, format!("{a:?} for {b:?}"));
        }
        assert_eq!(
            verdict,
            compare(&a, &b, 1),
            "not deterministic: {a:?} for {b:?}"
        );
        assert!(verdict.fuel <= 100_000, "{a:?} for {b:?}");
        most_fuel = most_fuel.max(verdict.fuel);
        num_equal += u64::from(verdict.is_same);
        let is_number =
            |text: &str| !text.is_empty() && text.chars().all(|c| "0123456789./+-*()".contains(c));
        if is_number(&a) && is_number(&b) {
            assert_eq!(
                verdict.is_same,
                compare(&b, &a, 1).is_same,
                "not symmetric: {a:?} and {b:?}"
            );
        }
        let _ = boxed(&a);
        let _ = is_well_formed(&a);
        let is_same = compat_equivalent(compat_boxed(&a), &b) || compat_equivalent(&a, &b);
        let elapsed = cost(slowest, || {
            let _ = compat_equivalent(&a, &b);
        });
        if elapsed > slowest {
            (slowest, slowest_input) = (elapsed, format!("compat {a:?} for {b:?}"));
        }
        num_equal += u64::from(is_same);
        num_inputs += 1;
    }
    println!(
        "{num_inputs} pairs, {num_equal} taken, most fuel {most_fuel}, slowest {slowest:?}: {slowest_input}"
    );
}
