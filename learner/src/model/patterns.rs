//! Tensors by pattern, layers by the end of their name; and what was meant by a pattern that is wrong.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use shared::config::nearest;

/// Whether a pattern stands for a tensor: with `*` (any characters) as a whole, without one as the first parts of the name.
#[must_use]
pub fn is_match(pattern: &str, name: &str) -> bool {
    if pattern.contains('*') {
        return is_glob_match(pattern, name);
    }
    let parts = pattern.trim_end_matches('.');
    name.strip_prefix(parts)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The names that a pattern stands for; none is an error, since a misspelt pattern would train what was meant to be frozen.
pub fn matching<'a>(pattern: &str, names: &[&'a str]) -> Result<Vec<&'a str>> {
    let found: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| is_match(pattern, name))
        .collect();
    if found.is_empty() {
        bail!(
            "nothing to freeze: no tensor's name matches {pattern:?}; {}",
            hint(pattern, names)
        );
    }
    Ok(found)
}

/// The layers whose name is `end`, or ends with it after a dot.
pub fn ending<'a>(end: &str, layers: &[&'a str]) -> Result<Vec<&'a str>> {
    let fits = |layer: &str| {
        layer
            .strip_suffix(end)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let found: Vec<&str> = layers.iter().copied().filter(|layer| fits(layer)).collect();
    if !found.is_empty() && !end.is_empty() {
        return Ok(found);
    }
    let kinds: BTreeSet<&str> = layers.iter().map(|layer| kind(layer)).collect();
    let near = nearest(end, kinds.iter().copied());
    let near = near.map_or_else(String::new, |near| format!("did you mean {near:?}? "));
    let kinds: Vec<&str> = kinds.into_iter().collect();
    bail!(
        "--lora-targets: no linear layer's name ends with {end:?}; {near}there are {}",
        kinds.join(", ")
    )
}

/// A layer's own name, with its list's where it is a number.
fn kind(layer: &str) -> &str {
    let mut dots = layer.rmatch_indices('.').map(|(dot, _)| dot + 1);
    let last = dots.next().unwrap_or(0);
    if layer[last..].bytes().all(|byte| byte.is_ascii_digit()) {
        &layer[dots.next().unwrap_or(0)..]
    } else {
        &layer[last..]
    }
}

/// `*` matches any number of any bytes. Steps back to the last `*` only, so the time is at most a product of the lengths.
fn is_glob_match(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            (p, n) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// What may have been meant by a pattern without a match.
fn hint(pattern: &str, names: &[&str]) -> String {
    let is_somewhere = |piece: &str| names.iter().any(|name| name.contains(piece));
    if !pattern.contains('*')
        && let Some(name) = names.iter().find(|name| name.contains(pattern))
    {
        return format!("did you mean \"*{pattern}*\", as in {name}?");
    }
    let pieces = pattern.split('*').map(|piece| piece.trim_matches('.'));
    let unknown = pieces.filter(|piece| !piece.is_empty() && !is_somewhere(piece));
    let runs = runs(names);
    let near: Vec<String> = unknown
        .filter_map(|piece| nearest(piece, runs.iter().copied()))
        .map(|near| format!("{near:?}"))
        .collect();
    match (near.is_empty(), names) {
        (false, _) => format!("did you mean {}?", near.join(" and ")),
        (true, [first, .., last]) => format!("names go from {first} to {last}"),
        (true, _) => "the model has none".to_owned(),
    }
}

/// All runs of whole parts of the names: `a.b` and `b.c` are two of `a.b.c`.
fn runs<'a>(names: &[&'a str]) -> BTreeSet<&'a str> {
    let mut runs = BTreeSet::new();
    for name in names {
        let starts = std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1));
        for start in starts {
            let rest = &name[start..];
            runs.extend(rest.match_indices('.').map(|(dot, _)| &rest[..dot]));
            runs.insert(rest);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = [
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.1.self_attn.q_proj.bias",
        "model.layers.11.mlp.down_proj.weight",
        "visual.merger.mlp.0.weight",
        "visual.merger.ln_q.weight",
    ];

    #[test]
    fn whole_parts_or_a_glob() {
        let indices = |pattern: &str| -> Vec<usize> {
            (0..NAMES.len())
                .filter(|&index| is_match(pattern, NAMES[index]))
                .collect()
        };
        assert_eq!(indices("visual."), [3, 4]);
        assert_eq!(indices("visual"), [3, 4]);
        assert_eq!(indices("model.layers.1"), [0, 1]); // not layer 11
        assert_eq!(indices("model.layers.1*"), [0, 1, 2]);
        assert_eq!(indices("*.weight"), [0, 2, 3, 4]);
        assert_eq!(indices("*.1.*_proj.*t"), [0]);
        assert_eq!(indices("*q_proj"), [0; 0]);
        assert_eq!(indices("*"), [0, 1, 2, 3, 4]);
        assert_eq!(indices("**a**s"), [1]);
        assert_eq!(indices(NAMES[4]), [4]);
        assert_eq!(indices("vis"), [0; 0]);
    }

    #[test]
    fn what_was_meant() {
        let message = |pattern: &str| matching(pattern, &NAMES).unwrap_err().to_string();
        assert_eq!(
            message("model.layer.1"),
            r#"nothing to freeze: no tensor's name matches "model.layer.1"; did you mean "model.layers.1"?"#
        );
        assert!(message("*.q_prj.*").ends_with(r#"did you mean "q_proj"?"#));
        assert!(message("q_proj").ends_with(
            r#"did you mean "*q_proj*", as in model.layers.1.self_attn.q_proj.weight?"#
        ));
        assert!(message("visual.*.bias").contains("names go from model."));
        assert!(message(&"x".repeat(10_000)).contains("names go from"));
    }

    #[test]
    fn layers_by_the_end_of_their_name() {
        let layers = ["model.layers.0.self_attn.q_proj", "visual.merger.mlp.0"];
        assert_eq!(ending("q_proj", &layers).unwrap(), layers[..1]);
        assert_eq!(ending("self_attn.q_proj", &layers).unwrap(), layers[..1]);
        assert_eq!(ending("mlp.0", &layers).unwrap(), layers[1..]);
        assert_eq!(
            ending("proj", &layers).unwrap_err().to_string(),
            r#"--lora-targets: no linear layer's name ends with "proj"; did you mean "q_proj"? there are mlp.0, q_proj"#
        );
    }
}
