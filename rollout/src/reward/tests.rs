//! The judged cases of tests/data/grading, and inputs that nobody judged.

use std::path::PathBuf;

use proptest::prelude::*;

use shared::config::{FormatRule, VerifierMode};

use super::*;

struct Case {
    id: String,
    prediction: String,
    answer: String,
    is_response: bool,
    expected: bool,
    category: String,
}

fn read(name: &str) -> Vec<serde_json::Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/grading")
        .join(name);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn cases() -> Vec<Case> {
    let text = |case: &serde_json::Value, key: &str| case[key].as_str().unwrap().to_owned();
    let rows = [read("cases.jsonl"), read("more_cases.jsonl")].concat();
    rows.iter()
        .map(|case| Case {
            id: text(case, "id"),
            prediction: text(case, "prediction"),
            answer: text(case, "answer"),
            is_response: case["mode"] == "response",
            expected: case["expected"].as_bool().unwrap(),
            category: text(case, "category"),
        })
        .collect()
}

fn verdict(case: &Case) -> bool {
    if case.is_response {
        boxed(&case.prediction).is_some_and(|answer| equivalent(&answer, &case.answer))
    } else {
        equivalent(&case.prediction, &case.answer)
    }
}

/// Of the judged cases: no false positive, and at least 99 % right.
#[test]
fn judged_cases() {
    let cases = cases();
    let wrong: Vec<&Case> = cases
        .iter()
        .filter(|case| verdict(case) != case.expected)
        .collect();
    for case in &wrong {
        let Case {
            id,
            prediction,
            answer,
            expected,
            category,
            ..
        } = case;
        println!("{id} {category}: {prediction:?} for {answer:?} should be {expected}");
    }
    println!("{} of {} right", cases.len() - wrong.len(), cases.len());
    assert!(wrong.iter().all(|case| case.expected), "a false positive");
    assert!(wrong.len() * 100 <= cases.len(), "{} wrong", wrong.len());
}

/// Of what mathruler itself said: at least 98 % said the same.
#[test]
fn compat_is_mathruler() {
    let (mut num_cases, mut wrong) = (0, 0);
    for case in [read("cases.jsonl"), read("more_cases.jsonl")].concat() {
        let Some(expected) = case["expected_mathruler"].as_bool() else {
            continue;
        };
        let prediction = case["prediction"].as_str().unwrap();
        let answer = case["answer"].as_str().unwrap();
        let given = if case["mode"] == "response" {
            compat_boxed(prediction)
        } else {
            prediction
        };
        num_cases += 1;
        if compat_equivalent(given, answer) != expected {
            wrong += 1;
            println!("{prediction:?} for {answer:?} is {expected} to mathruler");
        }
    }
    println!("{} of {num_cases} as mathruler", num_cases - wrong);
    assert!(num_cases > 400 && wrong * 50 <= num_cases, "{wrong} differ");
}

/// Form, accuracy and their sum, by EasyR1's rule and by NoisyRollout's.
#[test]
fn judged_formats() {
    for case in read("formats.jsonl") {
        let text = |key: &str| case[key].as_str().unwrap();
        let number = |key: &str| case[key].as_f64().unwrap();
        let rules = [
            ("expected", FormatRule::EasyR1),
            ("noisyrollout", FormatRule::NoisyRollout),
        ];
        for (prefix, rule) in rules {
            let verifier = Verifier::new(VerifierMode::Compat, rule, 0);
            #[expect(clippy::cast_possible_truncation, reason = "a weight")]
            let format_weight = number("format_weight") as f32;
            let config = RewardConfig {
                accuracy_weight: 1.0 - format_weight,
                format_weight,
                overlong_buffer: 0,
                overlong_penalty: 0.0,
                max_response_tokens: 100,
            };
            let reward = score(&verifier, text("response"), text("answer"), 1, &config);
            for (part, value) in [
                ("format", reward.format),
                ("accuracy", reward.accuracy),
                ("overall", reward.total),
            ] {
                let expected = number(&format!("{prefix}_{part}"));
                assert!(
                    (f64::from(value) - expected).abs() < 1e-6,
                    "{} {prefix} {part}",
                    case["id"]
                );
            }
        }
    }
}

#[test]
fn a_score_is_the_weighted_sum() {
    let config = RewardConfig {
        accuracy_weight: 0.9,
        format_weight: 0.1,
        overlong_buffer: 10,
        overlong_penalty: 1.0,
        max_response_tokens: 100,
    };
    let reward = score(
        &Verifier::default(),
        "<think>a</think>\\boxed{12}",
        "12",
        95,
        &config,
    );
    assert_eq!(
        (reward.accuracy, reward.format, reward.overlong),
        (1.0, 1.0, -0.5)
    );
    assert!((reward.total - 0.5).abs() < 1e-6);
    let reward = score(&Verifier::default(), "\\boxed{13}", "12", 5, &config);
    assert_eq!(
        (
            reward.total,
            reward.accuracy,
            reward.format,
            reward.overlong
        ),
        (0.0, 0.0, 0.0, 0.0)
    );
}

/// What stands in the tag, and the counts of what the modes disagree on.
#[test]
fn a_verifier_counts() {
    let verifier = Verifier::new(VerifierMode::Robust, FormatRule::R1v, 0);
    assert!(
        verifier
            .verify("<think>5</think><answer>x=4.0</answer>", "x=4")
            .is_right
    );
    assert!(verifier.verify("<answer>\\boxed{4}</answer>", "4").is_right);
    let verdict = verifier.verify("\\boxed{4}", "4");
    assert_eq!((verdict.is_right, verdict.reason), (false, Reason::NoBox));
    let counts = VerifierCounts {
        graded: 3,
        // mathruler reads `x=4.0` otherwise, and `\boxed{4}` as 4.
        disagreed: 2,
        failed: 0,
    };
    assert_eq!(verifier.take_counts(), counts);
    assert_eq!(verifier.take_counts(), VerifierCounts::default());
}

/// Kinds and reasons, as `rollout grade` shows them.
#[test]
fn a_verdict_says_why() {
    let says = |prediction: &str, gold: &str| {
        let comparison = compare(prediction, gold, 0);
        (comparison.kind, comparison.reason)
    };
    assert_eq!(says("B", "(A)"), (Kind::Choice, Reason::OtherValue));
    assert_eq!(says("Yes.", "yes"), (Kind::Text, Reason::SameValue));
    assert_eq!(says("1/0", "7"), (Kind::Number, Reason::Undefined));
    assert_eq!(says("7 8 9", "7"), (Kind::Number, Reason::NotRead));
    assert_eq!(says("30", "30^\\circ"), (Kind::Degrees, Reason::SameValue));
    assert_eq!(
        says("3 m", "300 \\text{ cm}"),
        (Kind::Measure, Reason::SameValue)
    );
    assert_eq!(says("0.5", "50\\%"), (Kind::Percentage, Reason::SameValue));
    assert_eq!(
        says("x \\le 3", "(-\\infty, 3]"),
        (Kind::Interval, Reason::SameValue)
    );
    assert_eq!(says("2, 1", "\\{1, 2\\}"), (Kind::Set, Reason::SameValue));
    let big = "(x+1)^{10}".repeat(19);
    assert_eq!(says(&big, "7"), (Kind::Number, Reason::TooMuchWork));
}

/// What other graders were seen to accept.
#[test]
fn known_holes_are_closed() {
    let wrong = [
        ("\\frac{6}{5\\sqrt7}", "\\frac{6\\sqrt7}{5}"),
        ("\\frac1{2+3}", "\\frac12+3"),
        ("6\\sqrt[3]2", "6\\sqrt2"),
        ("z=4", "x=4"),
        ("2x=4", "4"),
        ("1e-9", "0"),
        ("None", ""),
        ("", ""),
        ("0/0", "1"),
        ("\\frac{x-x}{x-x}", "1"),
        ("A or B", "A"),
        ("A and C", "A"),
        ("(A) or (B)", "A"),
        ("ABCD", "A"),
        ("3, 4, 5", "4"),
        ("x(x-1)(x-2)", "0"),
        ("1.2", "12"),
        ("12 cm", "12 \\text{ m}"),
        ("\\sqrt{-4}", "2"),
        ("2^10", "1024"),
        ("yes no", "yes"),
        ("x=3=4", "4"),
        ("13 or \\boxed{12}", "12"),
        ("3:4:5", "3:4"),
        // The question given back.
        ("3x=12", "x=4"),
        ("x-4=0", "x=4"),
        ("2x-1>3", "x>2"),
        ("x=5, y=2", "x=2, y=5"),
        ("5 million", "5"),
        ("5 \\text{ cm}", "5 apples"),
        ("\\sqrt2 \\approx 5", "\\sqrt2"),
        ("\\infty-\\infty", "0"),
        ("2 1/3", "21/3"),
    ];
    for (prediction, gold) in wrong {
        assert!(!equivalent(prediction, gold), "{prediction:?} for {gold:?}");
    }
}

#[test]
fn the_same_value_in_other_words() {
    let right = [
        ("2\\sqrt{221}", "2 \\sqrt { 221 }"),
        ("\\frac{1}{\\sqrt{2}+1}", "\\sqrt{2}-1"),
        ("(1+\\sqrt{5})/2", "\\frac{\\sqrt5+1}{2}"),
        ("\\sqrt[3]{16}", "2\\sqrt[3]{2}"),
        ("\\sqrt{2}\\sqrt{3}", "\\sqrt{6}"),
        ("\\frac{9}{4}\\pi", "2.25\\pi"),
        ("\\tan 45^\\circ", "1"),
        ("\\sin\\frac{\\pi}{6}", "0.5"),
        ("\\cos 120^\\circ", "-\\frac12"),
        ("36", "\\boxed{36}"),
        ("-\\frac{1}{2}", "-0.5"),
        ("\\frac{-1}{2}", "-0.5"),
        ("10\\pi\\text{ square inches}", "10\\pi"),
        ("2\\pm\\sqrt{3}", "2-\\sqrt3, 2+\\sqrt3"),
        ("1{,}000{,}000", "1000000"),
        ("x\\geq 3", "[3,\\infty)"),
        ("\\angle ABC = 35^{\\circ}", "35"),
    ];
    for (prediction, gold) in right {
        assert!(equivalent(prediction, gold), "{prediction:?} for {gold:?}");
    }
}

/// Each in far less than a second: the fuel, not a clock, ends them.
#[test]
fn hostile_answers_end() {
    let hostile = [
        "(".repeat(1000),
        "\\frac".repeat(400),
        "\\sqrt{".repeat(340),
        "9".repeat(2000),
        "9^{9^{9^{9^9}}}".to_owned(),
        "(a+b+c+d+e)^{100}".to_owned(),
        "((((1+\\sqrt2)^{64})^{64})^{64})^{64}".to_owned(),
        "\\sqrt{9999999999999999999999}".to_owned(),
        "1e99999999999999".to_owned(),
        "1,".repeat(1000),
        "\\pm ".repeat(300) + "1",
        "\\begin{pmatrix}".repeat(100),
        "\\text{".repeat(300),
        "-".repeat(2000),
        "/2".repeat(500),
        format!("1{}", "/(1+\\sqrt{2}+\\pi)".repeat(60)),
        "a".repeat(2_000_000),
        "\\boxed{".repeat(100_000),
        format!("{}x{}", "2\\frac{".repeat(20), "}1".repeat(20)),
    ];
    for answer in &hostile {
        assert!(!equivalent(answer, "7"));
        let _ = equivalent("7", answer);
        let _ = equivalent(answer, answer);
        let _ = boxed(&format!("\\boxed{{{answer}}}"));
        let _ = is_well_formed(answer);
    }
}

proptest! {
    #[test]
    fn any_text_is_graded(prediction in "\\PC{0,40}", gold in "\\PC{0,20}") {
        let _ = equivalent(&prediction, &gold);
        let _ = boxed(&prediction);
        let _ = is_well_formed(&prediction);
    }

    #[test]
    fn any_formula_is_graded(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "1", "2", "07", ".", ",", "x", "\\pi", "\\frac", "\\sqrt", "{", "}", "(", ")", "[", "]", "^", "_", "+", "-", "/", "=",
                "<", "\\pm", "\\circ", "%", "\\text{", " cm", "\\sin", "\\log", "\\{", "\\}", " ", "e", "√", "\\\\", "&", ":", "|",
                "\\begin{pmatrix}", "\\end{pmatrix}", "\\boxed{", "0", "\\angle", "and", "9999999",
            ]),
            0..24,
        ),
    ) {
        let text = pieces.concat();
        let _ = equivalent(&text, "1");
        let _ = equivalent("1", &text);
        let _ = boxed(&text);
    }

    /// A value equals itself, whatever it is written as, and not its successor.
    #[test]
    fn fractions(numerator in -10_000_i64..10_000, denominator in 1_i64..10_000, factor in 1_i64..50) {
        let gold = format!("\\frac{{{numerator}}}{{{denominator}}}");
        let same = format!("\\dfrac{{{}}}{{{}}}", numerator * factor, denominator * factor);
        let other = format!("{}/{denominator}", numerator + 1);
        prop_assert!(equivalent(&same, &gold));
        prop_assert!(!equivalent(&other, &gold));
    }

    #[test]
    fn surds(a in 1_i64..100, b in 2_i64..200, c in 1_i64..30) {
        let gold = format!("\\frac{{{a}\\sqrt{{{b}}}}}{{{c}}}");
        let rationalised = format!("\\frac{{{}}}{{{c}\\sqrt{{{b}}}}}", a * b);
        let squared = format!("\\sqrt{{\\frac{{{}}}{{{}}}}}", a * a * b, c * c);
        let other = format!("\\frac{{{a}\\sqrt{{{}}}}}{{{c}}}", b + 1);
        prop_assert!(equivalent(&rationalised, &gold));
        prop_assert!(equivalent(&squared, &gold));
        prop_assert!(!equivalent(&other, &gold));
    }
}
