//! One row as the model would get it.

use std::io::Write;

use anyhow::{Result, bail};
use serde_json::json;
use shared::dataset::Dataset;

use super::clean;
use super::measure::Reader;

/// Longest text that is printed of an answer or a solution.
const MAX_SHOWN: usize = 2000;

/// Writes row `index` to `out`.
///
/// # Errors
/// There is no such row, or it cannot be read.
pub(super) fn show(
    dataset: &Dataset,
    reader: &Reader,
    index: usize,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let num_rows = dataset.len();
    if index >= num_rows {
        bail!("--show {index}: the data set has {num_rows} rows, counted from 0");
    }
    let sample = dataset.get(index)?;
    let measured = reader.measure_sample(&sample);
    let label = dataset.label(index, &sample.id);
    let (shown, skipped) = (measured.prompt, measured.skipped);
    let images = shown.as_ref().map_or(&[][..], |shown| &shown.images);
    if is_json {
        let sizes: Vec<_> = measured
            .sizes
            .iter()
            .map(|(width, height)| json!({"width": width, "height": height}))
            .collect();
        let resized: Vec<_> = images
            .iter()
            .map(|(width, height, tokens)| json!({"width": width, "height": height, "tokens": tokens}))
            .collect();
        let row = json!({
            "row": index,
            "id": sample.id,
            "place": label,
            "problem": sample.problem,
            "answer": sample.answer,
            "solution": sample.solution,
            "images": sizes,
            "resized": resized,
            "prompt": shown.as_ref().map(|shown| &shown.text),
            "length": measured.length,
            "unit": reader.unit(),
            "skipped": skipped,
        });
        serde_json::to_writer_pretty(&mut *out, &row)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(
        out,
        "row           {index} of {num_rows}: {}",
        clean::line(&label)
    )?;
    writeln!(out, "answer        {}", long(&sample.answer))?;
    if let Some(solution) = &sample.solution {
        writeln!(out, "solution      {}", long(solution))?;
    }
    for (number, (width, height)) in measured.sizes.iter().enumerate() {
        write!(out, "image {number:<7} {width}x{height}")?;
        if let Some((width, height, tokens)) = images.get(number) {
            write!(out, ", for the model {width}x{height}: {tokens} tokens")?;
        }
        writeln!(out)?;
    }
    if let Some(length) = measured.length {
        let template = clean::line(reader.template().name());
        writeln!(
            out,
            "prompt        {length} {} (template {template})",
            reader.unit()
        )?;
    }
    match &shown {
        Some(shown) => writeln!(out, "{}", clean::lines(&shown.text))?,
        None => writeln!(out, "problem\n{}", clean::lines(&sample.problem))?,
    }
    if let Some(reason) = skipped {
        writeln!(out, "skipped       {}", clean::line(&reason))?;
    }
    Ok(())
}

fn long(text: &str) -> String {
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    let more = if shown.len() < text.len() { " ..." } else { "" };
    clean::lines(&shown) + more
}
