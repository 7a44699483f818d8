//! A small drawing surface: antialiased strokes, flat fills, sixteen colours, encoded as PNG.

use anyhow::{Context, Result};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::font::{self, Point};

/// Side of a figure in pixels: four by four image tokens.
pub(crate) const SIDE: usize = 112;
/// Steps of a colour's coverage; the last one is full.
const LEVELS: u8 = 3;
/// Where each ramp starts in the palette. A ramp over the ground comes first, then the same over the fill.
const LINE_RAMP: u8 = 2;
const TEXT_RAMP: u8 = LINE_RAMP + 2 * LEVELS;
const SPECKS: u8 = TEXT_RAMP + 2 * LEVELS;
const NUM_COLOURS: usize = 16;
/// Most specks of noise on a figure.
const MAX_SPECKS: usize = 40;

type Rgb = [u8; 3];

/// What has been drawn so far: coverage per pixel, from 0 to 1.
pub(crate) struct Canvas {
    lines: Vec<f32>,
    text: Vec<f32>,
    filled: Vec<bool>,
}

impl Canvas {
    pub(crate) fn new() -> Self {
        Self {
            lines: vec![0.0; SIDE * SIDE],
            text: vec![0.0; SIDE * SIDE],
            filled: vec![false; SIDE * SIDE],
        }
    }

    /// A path of straight pieces, `width` pixels wide.
    pub(crate) fn line(&mut self, path: &[Point], width: f32) {
        stroke(&mut self.lines, path, width / 2.0);
    }

    /// The inside of a polygon.
    pub(crate) fn fill(&mut self, polygon: &[Point]) {
        for (index, filled) in self.filled.iter_mut().enumerate() {
            *filled |= is_inside(polygon, center_of(index));
        }
    }

    /// A text centred on a point, `height` pixels high, tilted by `tilt` radians.
    pub(crate) fn text(&mut self, text: &str, center: Point, height: f32, tilt: f32, width: f32) {
        let (sin, cos) = tilt.sin_cos();
        for path in font::outline(text) {
            let path: Vec<Point> = path
                .iter()
                .map(|(x, y)| {
                    (
                        center.0 + height * (x * cos - y * sin),
                        center.1 + height * (x * sin + y * cos),
                    )
                })
                .collect();
            stroke(&mut self.text, &path, width / 2.0);
        }
    }

    /// Colours drawn at random, specks of noise, PNG with a palette of sixteen.
    pub(crate) fn encode(&self, rng: &mut ChaCha8Rng) -> Result<Vec<u8>> {
        let palette = palette(rng);
        let mut indices: Vec<u8> = (0..SIDE * SIDE).map(|pixel| self.index(pixel)).collect();
        for _ in 0..rng.random_range(0..=MAX_SPECKS) {
            let pixel = rng.random_range(0..indices.len());
            indices[pixel] = SPECKS + rng.random_range(0..2u8);
        }
        let packed: Vec<u8> = indices
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect();
        let mut bytes = Vec::new();
        let side = u32::try_from(SIDE)?;
        let mut encoder = png::Encoder::new(&mut bytes, side, side);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Four);
        encoder.set_palette(palette.concat());
        encoder.set_compression(png::Compression::High);
        encoder.set_filter(png::Filter::NoFilter);
        let mut writer = encoder.write_header().context("PNG header")?;
        writer.write_image_data(&packed).context("PNG data")?;
        writer.finish().context("PNG end")?;
        Ok(bytes)
    }

    /// Palette index of a pixel: text over lines over fill over ground.
    fn index(&self, pixel: usize) -> u8 {
        let ground = u8::from(self.filled[pixel]);
        let (text, line) = (level(self.text[pixel]), level(self.lines[pixel]));
        if text > 0 {
            TEXT_RAMP + ground * LEVELS + text - 1
        } else if line > 0 {
            LINE_RAMP + ground * LEVELS + line - 1
        } else {
            ground
        }
    }
}

/// Ground, fill, the ramps from either to the line and text colours, two speck colours: a light ground, dark text.
fn palette(rng: &mut ChaCha8Rng) -> Vec<Rgb> {
    let ground: Rgb = std::array::from_fn(|_| 255 - rng.random_range(0..40u8));
    let fill: Rgb = std::array::from_fn(|channel| ground[channel] - rng.random_range(0..36u8));
    let mut line: Rgb = std::array::from_fn(|_| rng.random_range(20..110u8));
    line[rng.random_range(0..3usize)] = rng.random_range(130..200);
    let text: Rgb = std::array::from_fn(|_| rng.random_range(0..48u8));
    let mut palette = vec![ground, fill];
    for ink in [line, text] {
        for under in [ground, fill] {
            palette.extend((1..=LEVELS).map(|level| mix(under, ink, level)));
        }
    }
    for _ in usize::from(SPECKS)..NUM_COLOURS {
        palette.push(std::array::from_fn(|channel| {
            ground[channel] - rng.random_range(40..110u8)
        }));
    }
    palette
}

/// `level / LEVELS` of the ink over what is under it.
fn mix(under: Rgb, ink: Rgb, level: u8) -> Rgb {
    std::array::from_fn(|channel| {
        let (under, ink) = (u16::from(under[channel]), u16::from(ink[channel]));
        let (level, levels) = (u16::from(level), u16::from(LEVELS));
        u8::try_from((under * (levels - level) + ink * level) / levels).unwrap_or(u8::MAX)
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coverage lies in 0..=1"
)]
fn level(coverage: f32) -> u8 {
    (coverage.clamp(0.0, 1.0) * f32::from(LEVELS)).round() as u8
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a pixel index is far below 2^24"
)]
fn center_of(pixel: usize) -> Point {
    ((pixel % SIDE) as f32 + 0.5, (pixel / SIDE) as f32 + 0.5)
}

fn stroke(plane: &mut [f32], path: &[Point], half_width: f32) {
    for piece in path.windows(2) {
        let (from, to) = (piece[0], piece[1]);
        let columns = reach(from.0.min(to.0) - half_width, from.0.max(to.0) + half_width);
        for y in reach(from.1.min(to.1) - half_width, from.1.max(to.1) + half_width) {
            for x in columns.clone() {
                let pixel = y * SIDE + x;
                let coverage = half_width + 0.5 - distance(center_of(pixel), from, to);
                plane[pixel] = plane[pixel].max(coverage.clamp(0.0, 1.0));
            }
        }
    }
}

/// Pixels between two coordinates, one more on either side, within the canvas.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "clamped to the canvas"
)]
fn reach(from: f32, to: f32) -> std::ops::Range<usize> {
    let side = SIDE as f32;
    (from - 1.0).clamp(0.0, side) as usize..(to + 2.0).clamp(0.0, side) as usize
}

/// Distance from a point to a straight piece.
fn distance(point: Point, from: Point, to: Point) -> f32 {
    let (along, off) = (
        (to.0 - from.0, to.1 - from.1),
        (point.0 - from.0, point.1 - from.1),
    );
    let length_squared = along.0 * along.0 + along.1 * along.1;
    let share = if length_squared > 0.0 {
        ((off.0 * along.0 + off.1 * along.1) / length_squared).clamp(0.0, 1.0)
    } else {
        0.0
    };
    (off.0 - share * along.0).hypot(off.1 - share * along.1)
}

/// Whether a ray to the right crosses the polygon's edge an odd number of times.
fn is_inside(polygon: &[Point], point: Point) -> bool {
    let next = polygon.iter().cycle().skip(1);
    let crossings = polygon.iter().zip(next).filter(|(from, to)| {
        (from.1 > point.1) != (to.1 > point.1)
            && point.0 < (to.0 - from.0) * (point.1 - from.1) / (to.1 - from.1) + from.0
    });
    crossings.count() % 2 == 1
}
