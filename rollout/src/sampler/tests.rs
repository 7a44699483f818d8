//! Draws: allowed tokens only, and in the right shares.
#![expect(clippy::cast_possible_truncation, reason = "logits are f32")]

use proptest::prelude::*;

use super::{Distribution, EntropyKind, Sampler, Sampling, uniform};

fn sampling(num_tokens: usize) -> Sampling {
    Sampling {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        entropy: EntropyKind::Renormalised,
        nucleus_p: 0.95,
        banned: vec![],
        num_tokens,
    }
}

/// Pearson's chi-square of `draws` draws against the softmax over the tokens of `allowed`.
fn chi_square(sampling: Sampling, logits: &[f32], allowed: &[usize], draws: u64) -> f64 {
    let temperature = sampling.temperature;
    let mut sampler = Sampler::new(sampling);
    let mut counts = vec![0.0; logits.len()];
    for ticket in 0..draws {
        counts[sampler
            .sample(logits, uniform(11, ticket, 0, 0))
            .unwrap()
            .token as usize] += 1.0;
    }
    let weight = |index: &usize| f64::from(logits[*index] / temperature).exp();
    let total: f64 = allowed.iter().map(weight).sum();
    let drawn: f64 = allowed.iter().map(|&index| counts[index]).sum();
    assert_eq!(
        drawn, draws as f64,
        "a token outside the allowed set was drawn"
    );
    allowed
        .iter()
        .map(|index| {
            let expected = weight(index) / total * draws as f64;
            (counts[*index] - expected).powi(2) / expected
        })
        .sum()
}

#[test]
fn draws_follow_the_distribution() {
    let logits: Vec<f32> = (0..20_u8).map(|i| f32::from(i) * 0.1 - 1.0).collect();
    let all: Vec<usize> = (0..20).collect();
    // 99.9 % points of chi-square: 43.8 with 19 degrees of freedom, 39.3 with 16, 20.5 with 5.
    assert!(chi_square(sampling(20), &logits, &all, 40_000) < 43.8);
    let tempered = Sampling {
        temperature: 0.5,
        ..sampling(20)
    };
    assert!(chi_square(tempered, &logits, &all, 40_000) < 43.8);
    let banned = Sampling {
        banned: vec![0, 7],
        num_tokens: 19,
        ..sampling(19)
    };
    let allowed: Vec<usize> = (0..19).filter(|i| ![0, 7].contains(i)).collect();
    assert!(chi_square(banned, &logits, &allowed, 40_000) < 39.3);
    let top_k = Sampling {
        top_k: 6,
        ..sampling(20)
    };
    assert!(chi_square(top_k, &logits, &all[14..], 40_000) < 20.5);
}

#[test]
fn top_p_draws_from_the_nucleus_of_what_top_k_left() {
    let logits: Vec<f32> = [0.4_f32, 0.3, 0.2, 0.1].iter().map(|p| p.ln()).collect();
    let top_p = Sampling {
        top_p: 0.65,
        ..sampling(4)
    };
    assert!(chi_square(top_p, &logits, &[0, 1], 10_000) < 10.8);
    // Of the two that top-k leaves, the first alone has 4/7 = 0.571.
    let both = Sampling {
        top_k: 2,
        top_p: 0.55,
        ..sampling(4)
    };
    assert!(chi_square(both, &logits, &[0], 1000) < 1e-9);
}

/// A wide nucleus is drawn from by trying tokens of the whole row: those of the nucleus keep their shares.
#[test]
fn a_wide_nucleus_keeps_its_shares() {
    let row: Vec<f32> = (0..1500)
        .map(|id| (uniform(6, id, 0, 0) * 30.0).round() as f32 / 15.0)
        .collect();
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    let mut distribution = Distribution::new();
    distribution.load(&row, 1.0).unwrap();
    for top_p in [0.6_f32, 0.9] {
        let size = distribution.nucleus(&row, f64::from(top_p)).size;
        assert!(size > 300, "{size}");
        let wide = Sampling {
            top_p,
            ..sampling(row.len())
        };
        // Four standard deviations of chi-square above its mean.
        let freedom = size as f64 - 1.0;
        let limit = freedom + 4.0 * (2.0 * freedom).sqrt();
        let found = chi_square(wide, &row, &order[..size], 60_000);
        assert!(found < limit, "{found}, not below {limit}");
    }
}

/// The draw and the statistics agree on who is in the nucleus, be it short or wide; and top-k passes over what is banned.
#[test]
fn every_token_of_the_selection_is_drawn_and_no_other() {
    let row: Vec<f32> = (0..2000)
        .map(|id| (uniform(5, id, 0, 0) * 40.0).round() as f32 / 40.0)
        .collect();
    let mut order: Vec<u32> = (0..2000).collect();
    order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
    let mut distribution = Distribution::new();
    distribution.load(&row, 1.0).unwrap();
    for (top_k, top_p, num_banned) in [(0, 0.005, 0), (0, 0.7, 0), (20, 1.0, 0), (20, 1.0, 3)] {
        let banned = order[..num_banned].to_vec();
        let size = match top_k {
            0 => distribution.nucleus(&row, f64::from(top_p)).size,
            _ => top_k,
        };
        let mut expected = order[num_banned..][..size].to_vec();
        expected.sort_unstable();

        let mut sampler = Sampler::new(Sampling {
            top_k,
            top_p,
            banned,
            ..sampling(row.len())
        });
        let mut drawn: Vec<u32> = (0..5000)
            .map(|step| {
                sampler
                    .sample(&row, f64::from(step) / 5000.0)
                    .unwrap()
                    .token
            })
            .collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, expected, "{top_k} {top_p} {num_banned}");
    }
}

#[test]
fn the_statistics_ignore_bans_and_truncation() {
    let logits = [2.0, 1.0, 0.0, -1.0];
    let plain = Sampler::new(sampling(4)).score(&logits, 1).unwrap();
    let cut = Sampling {
        top_k: 1,
        top_p: 0.1,
        banned: vec![0],
        num_tokens: 3,
        ..sampling(4)
    };
    let drawn = Sampler::new(cut).sample(&logits, 0.3).unwrap();
    assert_eq!(drawn, plain);
    let total: f32 = logits.iter().map(|l: &f32| l.exp()).sum();
    assert!((plain.logprob - (1.0 - total.ln())).abs() < 1e-6);
}

#[test]
fn a_ban_that_holds_all_the_mass_leaves_the_shares_of_the_rest() {
    let banned = Sampling {
        banned: vec![1],
        ..sampling(4)
    };
    // 99.9 % point of chi-square with 2 degrees of freedom. 60: lost in an f64 sum; 3000: lost to the weights themselves.
    for gap in [60.0, 3000.0] {
        let shares = chi_square(banned.clone(), &[0.0, gap, 1.0, 0.5], &[0, 2, 3], 10_000);
        assert!(shares < 13.8, "{gap}: {shares}");
    }
    let nothing = Sampling {
        banned: vec![0, 1],
        num_tokens: 2,
        ..banned
    };
    assert!(
        Sampler::new(nothing)
            .sample(&[0.0, 3000.0, 1.0, 0.5], 0.9)
            .is_err()
    );
}

#[test]
fn greedy_takes_the_lower_id_of_equals() {
    let greedy = Sampling {
        temperature: 0.0,
        banned: vec![3],
        ..sampling(4)
    };
    let drawn = Sampler::new(greedy)
        .sample(&[0.0, 1.0, 1.0, 9.0], 0.99)
        .unwrap();
    assert_eq!(drawn.token, 1);
}

proptest! {
    #[test]
    fn forbidden_tokens_are_never_drawn(
        row in prop::collection::vec(-20.0_f32..20.0, 2..3000),
        number in 0.0_f64..1.0,
        top_k in 0_usize..40,
        top_p in prop_oneof![Just(1.0_f32), 0.05_f32..1.0],
        cut in 0_usize..10,
        first in any::<bool>(),
    ) {
        let num_tokens = row.len().saturating_sub(cut).max(1);
        // The likeliest token is banned: the one a careless sampler would take.
        let top = (0_u32..).zip(&row).max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        let mut banned = vec![top];
        if first && top != 0 { banned.insert(0, 0); }
        let possible = (0_u32..).zip(0..num_tokens).any(|(id, _)| !banned.contains(&id));
        let drawn = Sampler::new(Sampling { top_k, top_p, banned: banned.clone(), ..sampling(num_tokens) }).sample(&row, number);
        if possible {
            let token = drawn.unwrap().token;
            prop_assert!(!banned.contains(&token) && (token as usize) < num_tokens);
        } else {
            prop_assert!(drawn.is_err());
        }
    }
}
