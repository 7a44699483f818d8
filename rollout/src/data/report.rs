//! The figures of all rows, and how they are shown.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};

use serde_json::{Value, json};
use shared::dataset::{Column, DataPart, Dataset, FileSummary};

use super::clean;
use super::distribution::Distribution;
use super::measure::{Answer, Measured, Reader};

/// Kinds of reasons that are kept apart; what a hostile file adds to them goes under one heading.
const MAX_KINDS: usize = 40;
const OTHER: &str = "other reasons";
/// Files and columns that are listed.
const MAX_LISTED: usize = 20;

/// What is in a data set.
pub(super) struct Report {
    parts: Vec<DataPart>,
    files: Vec<FileSummary>,
    unit: &'static str,
    template: String,
    total_rows: usize,
    rows: usize,
    images_per_row: Distribution,
    widths: Distribution,
    heights: Distribution,
    pixels: Distribution,
    lengths: Distribution,
    num_images: usize,
    text_only: usize,
    several_images: usize,
    solutions: usize,
    duplicates: usize,
    numbers: usize,
    letters: usize,
    others: usize,
    seen: HashSet<u64>,
    /// By kind of reason: how many, and the first.
    skipped: BTreeMap<String, (usize, String)>,
}

impl Report {
    pub(super) fn new(dataset: &Dataset, reader: &Reader) -> Self {
        Self {
            parts: dataset.parts().to_vec(),
            files: dataset.files(),
            unit: reader.unit(),
            template: reader.template().name().to_owned(),
            total_rows: dataset.len(),
            rows: 0,
            images_per_row: Distribution::default(),
            widths: Distribution::default(),
            heights: Distribution::default(),
            pixels: Distribution::default(),
            lengths: Distribution::default(),
            num_images: 0,
            text_only: 0,
            several_images: 0,
            solutions: 0,
            duplicates: 0,
            numbers: 0,
            letters: 0,
            others: 0,
            seen: HashSet::new(),
            skipped: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, row: Measured) {
        self.rows += 1;
        if let Some(sample) = row.sample {
            self.num_images += sample.num_images;
            self.images_per_row.add(sample.num_images as u64);
            self.text_only += usize::from(sample.num_images == 0);
            self.several_images += usize::from(sample.num_images > 1);
            self.solutions += usize::from(sample.has_solution);
            self.duplicates += usize::from(!self.seen.insert(sample.digest));
            match sample.answer {
                Answer::Number => self.numbers += 1,
                Answer::Letter => self.letters += 1,
                Answer::Other => self.others += 1,
            }
        }
        for (width, height) in row.sizes {
            self.widths.add(width.into());
            self.heights.add(height.into());
            self.pixels.add(u64::from(width) * u64::from(height));
        }
        if let Some(length) = row.length {
            self.lengths.add(length);
        }
        if let Some(reason) = row.skipped {
            let mut kind = kind_of(&reason);
            if self.skipped.len() >= MAX_KINDS && !self.skipped.contains_key(&kind) {
                OTHER.clone_into(&mut kind);
            }
            let first = || format!("{}: {}", clean::line(&row.label), clean::line(&reason));
            let entry = self.skipped.entry(kind).or_insert_with(|| (0, first()));
            entry.0 += 1;
        }
    }

    pub(super) fn num_rows(&self) -> usize {
        self.rows
    }

    pub(super) fn num_skipped(&self) -> usize {
        self.skipped.values().map(|(count, _)| count).sum()
    }

    pub(super) fn num_used(&self) -> usize {
        self.rows - self.num_skipped()
    }

    /// Kinds of reasons, the commonest first.
    fn reasons(&self) -> Vec<(&str, usize, &str)> {
        let skipped = self.skipped.iter();
        let mut reasons: Vec<_> = skipped
            .map(|(kind, (count, first))| (kind.as_str(), *count, first.as_str()))
            .collect();
        reasons.sort_by_key(|&(_, count, _)| std::cmp::Reverse(count));
        reasons
    }

    pub(super) fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        for part in self.parts.iter().take(MAX_LISTED) {
            let source = clean::line(&part.source);
            write!(out, "data set      {source}: {} rows", part.rows)?;
            if part.visits != part.rows {
                write!(out, ", {} visits per epoch", part.visits)?;
            }
            writeln!(out)?;
        }
        rest(out, self.parts.len())?;
        for (number, file) in self.files.iter().take(MAX_LISTED).enumerate() {
            let path = clean::line(&file.path.display().to_string());
            writeln!(
                out,
                "file          {path}: {}, {} rows",
                file.format, file.rows
            )?;
            let known = number
                .checked_sub(1)
                .and_then(|before| self.files.get(before))
                .is_some_and(|before| before.columns == file.columns);
            if !known {
                write_columns(out, &file.columns)?;
            }
        }
        rest(out, self.files.len())?;
        write!(out, "rows          {}", self.rows)?;
        if self.rows < self.total_rows {
            write!(out, " of {} were read", self.total_rows)?;
        }
        writeln!(out)?;
        let (text_only, several) = (self.text_only, self.several_images);
        writeln!(
            out,
            "images        {}; {text_only} rows without, {several} with several",
            self.num_images
        )?;
        if !self.widths.is_empty() {
            writeln!(out, "  width       {}", self.widths.line())?;
            writeln!(out, "  height      {}", self.heights.line())?;
            writeln!(out, "  pixels      {}", self.pixels.line())?;
        }
        if !self.lengths.is_empty() {
            let (unit, line) = (self.unit, self.lengths.line());
            let template = clean::line(&self.template);
            writeln!(out, "prompt        {unit}: {line} (template {template})")?;
            self.lengths.write_histogram(out)?;
        }
        let Self {
            numbers,
            letters,
            others,
            ..
        } = self;
        writeln!(
            out,
            "answers       {numbers} numbers, {letters} letters, {others} others; {} worked solutions",
            self.solutions
        )?;
        if self.duplicates > 0 {
            let duplicates = self.duplicates;
            writeln!(
                out,
                "repeated      {duplicates} rows have the problem and the images of an earlier one"
            )?;
        }
        writeln!(out, "used          {}", self.num_used())?;
        writeln!(out, "skipped       {}", self.num_skipped())?;
        for (kind, count, first) in self.reasons() {
            writeln!(out, "  {count:<10}  {kind}")?;
            writeln!(out, "              first: {first}")?;
        }
        Ok(())
    }

    pub(super) fn json(&mut self) -> Value {
        let column = |column: &Column| json!({"name": column.name, "type": column.kind, "used_as": column.used_as});
        let file = |file: &FileSummary| {
            json!({
                "path": file.path.to_string_lossy(),
                "format": file.format,
                "rows": file.rows,
                "columns": file.columns.iter().map(column).collect::<Vec<_>>(),
            })
        };
        let part = |part: &DataPart| json!({"source": part.source, "rows": part.rows, "visits_per_epoch": part.visits});
        let reasons: Vec<Value> = self
            .reasons()
            .into_iter()
            .map(|(kind, count, first)| json!({"reason": kind, "rows": count, "first": first}))
            .collect();
        json!({
            "sources": self.parts.iter().map(part).collect::<Vec<_>>(),
            "files": self.files.iter().map(file).collect::<Vec<_>>(),
            "rows": self.total_rows,
            "rows_read": self.rows,
            "used": self.num_used(),
            "skipped": self.num_skipped(),
            "skipped_by_reason": reasons,
            "images": {
                "count": self.num_images,
                "rows_without": self.text_only,
                "rows_with_several": self.several_images,
                "per_row": self.images_per_row.json(),
                "width": self.widths.json(),
                "height": self.heights.json(),
                "pixels": self.pixels.json(),
            },
            "prompt": {
                "unit": self.unit,
                "template": self.template,
                "length": self.lengths.json(),
            },
            "answers": {"numbers": self.numbers, "letters": self.letters, "others": self.others},
            "solutions": self.solutions,
            "repeated": self.duplicates,
        })
    }
}

fn write_columns(out: &mut dyn Write, columns: &[Column]) -> io::Result<()> {
    for column in columns.iter().take(MAX_LISTED) {
        let (name, kind) = (clean::line(&column.name), clean::line(&column.kind));
        let used = column
            .used_as
            .map_or(String::new(), |role| format!(" -> {role}"));
        writeln!(out, "  column      {name}: {kind}{used}")?;
    }
    rest(out, columns.len())
}

fn rest(out: &mut dyn Write, num: usize) -> io::Result<()> {
    match num.checked_sub(MAX_LISTED) {
        Some(more) if more > 0 => writeln!(out, "              and {more} more"),
        _ => Ok(()),
    }
}

/// A reason without what is the row's own: numbers and what stands in quotes.
fn kind_of(reason: &str) -> String {
    let mut kind = String::new();
    let mut signs = reason.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '"' => {
                kind.push_str("\"...\"");
                while let Some(quoted) = signs.next() {
                    match quoted {
                        '\\' => drop(signs.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '0'..='9' => {
                kind.push('N');
                while signs.next_if(char::is_ascii_digit).is_some() {}
            }
            sign => kind.push(sign),
        }
    }
    clean::line(&kind)
}

#[cfg(test)]
mod tests {
    use super::kind_of;

    #[test]
    fn reasons_of_a_kind_are_one() {
        assert_eq!(
            kind_of("image \"a \\\" 1.png\": 600x60 pixels is too large"),
            "image \"...\": NxN pixels is too large"
        );
    }
}
