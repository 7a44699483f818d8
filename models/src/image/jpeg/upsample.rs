//! A component's row at the image's width: libjpeg's "fancy" interpolation, three parts of the nearer sample to one of
//! the farther, where a component has half the samples; repetition elsewhere.

use super::frame::Component;

/// Narrower components are repeated, not interpolated.
const MIN_WIDTH: usize = 3;

/// Row `y` of the image into `out`, at least as wide as the image.
pub(super) fn row(component: &Component, y: usize, out: &mut Vec<u8>) {
    out.clear();
    let (across, down) = component.stretch;
    let near = line(component, y / down);
    let interpolates = component.width >= MIN_WIDTH;
    match (across, down) {
        (1, 1) => out.extend_from_slice(near),
        (2, 1) if interpolates => twice_as_wide(near, out),
        (1, 2) => {
            let bias = if y.is_multiple_of(2) { 1 } else { 2 };
            let pairs = near.iter().zip(neighbour(component, y));
            out.extend(pairs.map(|(&near, &far)| narrow((blend(near, far) + bias) >> 2)));
        }
        (2, 2) if interpolates => {
            let sums = near.iter().zip(neighbour(component, y));
            let sums: Vec<u32> = sums.map(|(&near, &far)| blend(near, far)).collect();
            twice_both_ways(&sums, out);
        }
        _ => out.extend(
            near.iter()
                .flat_map(|&sample| std::iter::repeat_n(sample, across)),
        ),
    }
}

/// A row of the component, without padding.
fn line(component: &Component, row: usize) -> &[u8] {
    &component.plane[row * component.stride..][..component.width]
}

/// The row on the other side of row `y` of the image, where each of the component's rows stands for two; the component's
/// own edge row at the edges.
fn neighbour(component: &Component, y: usize) -> &[u8] {
    let own = y / 2;
    let row = if y.is_multiple_of(2) {
        own.saturating_sub(1)
    } else {
        (own + 1).min(component.height - 1)
    };
    line(component, row)
}

/// Columns alone: quarters, rounded down to the left and up to the right.
fn twice_as_wide(near: &[u8], out: &mut Vec<u8>) {
    let last = near.len() - 1;
    for (x, &sample) in near.iter().enumerate() {
        let left = if x == 0 {
            sample
        } else {
            narrow((blend(sample, near[x - 1]) + 1) >> 2)
        };
        let right = if x == last {
            sample
        } else {
            narrow((blend(sample, near[x + 1]) + 2) >> 2)
        };
        out.extend([left, right]);
    }
}

/// Columns of rows that were blended before: sixteenths.
fn twice_both_ways(sums: &[u32], out: &mut Vec<u8>) {
    let last = sums.len() - 1;
    for (x, &sum) in sums.iter().enumerate() {
        let left = if x == 0 { sum } else { sums[x - 1] };
        let right = if x == last { sum } else { sums[x + 1] };
        out.push(narrow((3 * sum + left + 8) >> 4));
        out.push(narrow((3 * sum + right + 7) >> 4));
    }
}

fn blend(near: u8, far: u8) -> u32 {
    3 * u32::from(near) + u32::from(far)
}

fn narrow(value: u32) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(width: usize, stretch: (usize, usize), plane: &[u8]) -> Component {
        Component {
            id: 1,
            factors: (1, 1),
            stretch,
            width,
            height: plane.len() / width,
            stride: width,
            plane: plane.to_vec(),
            table_index: 0,
            table: None,
            coefficients: Vec::new(),
        }
    }

    fn rows(component: &Component, count: usize) -> Vec<Vec<u8>> {
        let row = |y| {
            let mut out = Vec::new();
            row(component, y, &mut out);
            out
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn columns_are_quarters() {
        let component = component(3, (2, 1), &[10, 20, 33]);
        // (3 * 10 + 20 + 2) / 4, (3 * 20 + 10 + 1) / 4, (3 * 20 + 33 + 2) / 4, (3 * 33 + 20 + 1) / 4
        assert_eq!(rows(&component, 1), [[10, 13, 17, 23, 30, 33]]);
    }

    #[test]
    fn rows_are_quarters() {
        let component = component(1, (1, 2), &[10, 21]);
        // the edge itself, (3 * 10 + 21 + 2) / 4, (3 * 21 + 10 + 1) / 4, the edge itself
        assert_eq!(rows(&component, 4), [[10], [13], [18], [21]]);
    }

    #[test]
    fn both_are_sixteenths() {
        let component = component(3, (2, 2), &[0, 16, 16]);
        assert_eq!(rows(&component, 2), [[0, 4, 12, 16, 16, 16]; 2]);
    }

    #[test]
    fn two_columns_are_repeated() {
        let component = component(2, (2, 2), &[10, 30]);
        assert_eq!(rows(&component, 2), [[10, 10, 30, 30]; 2]);
    }
}
