//! Of many numbers the few that say how they are spread.

use std::io::{self, Write};

use serde_json::{Value, json};

/// Bars of a histogram, at most.
const BINS: u64 = 10;
const BAR_WIDTH: u64 = 32;

/// Numbers as they come; sorted when they are asked about.
#[derive(Debug, Default)]
pub(super) struct Distribution {
    values: Vec<u64>,
    is_sorted: bool,
}

impl Distribution {
    pub(super) fn add(&mut self, value: u64) {
        self.values.push(value);
        self.is_sorted = false;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value that `percent` of all do not exceed.
    fn percentile(&mut self, percent: usize) -> u64 {
        if !self.is_sorted {
            self.values.sort_unstable();
            self.is_sorted = true;
        }
        let last = self.values.len().saturating_sub(1);
        let rank = (self.values.len() * percent)
            .div_ceil(100)
            .saturating_sub(1);
        self.values.get(rank.min(last)).copied().unwrap_or_default()
    }

    /// `min 1  median 5  95% 9  max 10`
    pub(super) fn line(&mut self) -> String {
        let [min, median, most, max] = [0, 50, 95, 100].map(|percent| self.percentile(percent));
        format!("min {min}  median {median}  95% {most}  max {max}")
    }

    pub(super) fn json(&mut self) -> Value {
        if self.is_empty() {
            return Value::Null;
        }
        let [min, median, most, max] = [0, 50, 95, 100].map(|percent| self.percentile(percent));
        let bins: Vec<Value> = self
            .histogram()
            .into_iter()
            .map(|(from, to, count)| json!({"from": from, "to": to, "count": count}))
            .collect();
        json!({"count": self.values.len(), "min": min, "median": median, "p95": most, "max": max, "histogram": bins})
    }

    /// First and last value and number of values of each bin; their width is 1, 2 or 5 times a power of ten.
    fn histogram(&mut self) -> Vec<(u64, u64, u64)> {
        let (min, max) = (self.percentile(0), self.percentile(100));
        let mut widths = (0..19).flat_map(|power| [1, 2, 5].map(|step| step * 10_u64.pow(power)));
        let num_bins = |width: u64| (max / width - min / width).saturating_add(1);
        let width = widths
            .find(|&width| num_bins(width) <= BINS)
            .unwrap_or(u64::MAX);
        let first = min / width;
        let mut bins: Vec<(u64, u64, u64)> = (first..first + num_bins(width))
            .map(|bin| (bin * width, (bin * width).saturating_add(width - 1), 0))
            .collect();
        for value in &self.values {
            let bin = usize::try_from(value / width - first).ok();
            if let Some(bin) = bin.and_then(|bin| bins.get_mut(bin)) {
                bin.2 += 1;
            }
        }
        bins
    }

    pub(super) fn write_histogram(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let bins = self.histogram();
        let most = bins.iter().map(|bin| bin.2).max().unwrap_or(1).max(1);
        let digits = bins.last().map_or(1, |bin| bin.1.to_string().len());
        for (from, to, count) in bins {
            let length = usize::try_from((count * BAR_WIDTH).div_ceil(most)).unwrap_or(0);
            let bar = "#".repeat(length);
            writeln!(
                out,
                "              {from:>digits$} - {to:>digits$}  {bar:<32}  {count}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_numbers_for_many() {
        let mut numbers = Distribution::default();
        (1..=200).rev().for_each(|n| numbers.add(n));
        assert_eq!(numbers.line(), "min 1  median 100  95% 190  max 200");
        let bins = numbers.histogram();
        assert_eq!(bins.first(), Some(&(0, 49, 49)));
        assert_eq!(bins.last(), Some(&(200, 249, 1)));
        assert_eq!(bins.iter().map(|bin| bin.2).sum::<u64>(), 200);
        let mut one = Distribution::default();
        one.add(7);
        assert_eq!(one.histogram(), [(7, 7, 1)]);
        assert_eq!(one.line(), "min 7  median 7  95% 7  max 7");
        let mut wide = Distribution::default();
        wide.add(0);
        wide.add(u64::MAX);
        assert_eq!(wide.histogram().iter().map(|bin| bin.2).sum::<u64>(), 2);
        assert_eq!(Distribution::default().json(), Value::Null);
    }
}
