//! A figure while it is laid out: paths, fills and labels in pixels, and whether they all fit.

use std::f32::consts::{PI, TAU};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::canvas::{Canvas, SIDE};
use crate::font::{self, Point};

/// Image tokens per side; a label is read off the cell that holds its centre.
pub(crate) const CELLS: usize = 4;
/// Largest turn of a figure, in radians: 12 degrees.
const MAX_TURN: f32 = 0.209;
/// Largest tilt of a label, in radians: 5 degrees.
const MAX_TILT: f32 = 0.087;
/// Least distance in pixels between a label and the line it belongs to, and between a label and the border.
const GAP: f32 = 3.0;
const BORDER: f32 = 1.5;

/// A number on the figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) value: u32,
    /// Row-major index of the image token that holds the label's centre, `0..16`.
    pub(crate) cell: usize,
}

/// A drawn figure.
pub(crate) struct Figure {
    pub(crate) canvas: Canvas,
    /// In reading order: by cell.
    pub(crate) labels: Vec<Label>,
}

/// A text to be drawn, with the half extents of its box.
struct Text {
    text: String,
    value: Option<u32>,
    center: Point,
    half: Point,
}

/// What will be drawn once it is known to fit.
pub(crate) struct Layout {
    paths: Vec<Vec<Point>>,
    fills: Vec<Vec<Point>>,
    texts: Vec<Text>,
    origin: Point,
    turn: f32,
    tilt: f32,
    text_height: f32,
    text_width: f32,
    line_width: f32,
    is_filled: bool,
}

impl Layout {
    pub(crate) fn new(rng: &mut ChaCha8Rng) -> Self {
        Self {
            paths: Vec::new(),
            fills: Vec::new(),
            texts: Vec::new(),
            origin: (rng.random_range(38.0..74.0), rng.random_range(38.0..74.0)),
            turn: rng.random_range(-MAX_TURN..MAX_TURN),
            tilt: rng.random_range(-MAX_TILT..MAX_TILT),
            text_height: rng.random_range(13.0..15.5),
            text_width: rng.random_range(1.7..2.2),
            line_width: rng.random_range(1.3..2.2),
            is_filled: rng.random_bool(0.5),
        }
    }

    pub(crate) fn polygon(&mut self, corners: &[Point]) {
        let mut path: Vec<Point> = corners.iter().map(|corner| self.placed(*corner)).collect();
        if self.is_filled {
            self.fills.push(path.clone());
        }
        path.extend_from_within(..1);
        self.paths.push(path);
    }

    pub(crate) fn path(&mut self, points: &[Point]) {
        let path = points.iter().map(|point| self.placed(*point)).collect();
        self.paths.push(path);
    }

    /// An arc around a corner, from one direction to another the short way.
    pub(crate) fn arc(&mut self, center: Point, from: f32, to: f32, radius: f32) {
        let turn = (to - from + PI).rem_euclid(TAU) - PI;
        let points: Vec<Point> = (0..=8u8)
            .map(|step| on_circle(center, radius, from + turn * f32::from(step) / 8.0))
            .collect();
        self.path(&points);
    }

    /// A label beside the middle of a side, on the side that is away from `inside`.
    pub(crate) fn beside(
        &mut self,
        from: Point,
        to: Point,
        inside: Point,
        text: &str,
        value: Option<u32>,
    ) {
        let middle = (f32::midpoint(from.0, to.0), f32::midpoint(from.1, to.1));
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let normal = ((to.1 - from.1) / length, (from.0 - to.0) / length);
        let outward = (middle.0 - inside.0) * normal.0 + (middle.1 - inside.1) * normal.1;
        let direction = if outward >= 0.0 {
            normal
        } else {
            (-normal.0, -normal.1)
        };
        self.label(middle, direction, text, value);
    }

    /// A label next to a point, in a direction given by a unit vector; as far off as its box needs.
    pub(crate) fn label(&mut self, from: Point, direction: Point, text: &str, value: Option<u32>) {
        let half = (
            self.text_height * font::width(text) / 2.0,
            self.text_height / 2.0,
        );
        let from = self.placed(from);
        let (sin, cos) = self.turn.sin_cos();
        let direction = (
            direction.0 * cos - direction.1 * sin,
            direction.0 * sin + direction.1 * cos,
        );
        let off = GAP + direction.0.abs() * half.0 + direction.1.abs() * half.1;
        let center = (from.0 + direction.0 * off, from.1 + direction.1 * off);
        self.texts.push(Text {
            text: text.to_owned(),
            value,
            center,
            half,
        });
    }

    /// Figure coordinates, centred and upright, to pixels.
    fn placed(&self, point: Point) -> Point {
        let (sin, cos) = self.turn.sin_cos();
        (
            self.origin.0 + point.0 * cos - point.1 * sin,
            self.origin.1 + point.0 * sin + point.1 * cos,
        )
    }

    /// Whether everything lies within the canvas, no two labels touch, and no two share a cell.
    pub(crate) fn fits(&self) -> bool {
        let within = |point: &Point, margin: Point| {
            let inside =
                |at: f32, margin: f32| (BORDER + margin..=side() - BORDER - margin).contains(&at);
            inside(point.0, margin.0) && inside(point.1, margin.1)
        };
        let apart = |(index, text): (usize, &Text)| {
            self.texts[..index].iter().all(|other| {
                let far = |axis: fn(&Point) -> f32| {
                    (axis(&text.center) - axis(&other.center)).abs()
                        > axis(&text.half) + axis(&other.half) + GAP
                };
                (far(|point| point.0) || far(|point| point.1))
                    && cell(text.center) != cell(other.center)
            })
        };
        self.paths
            .iter()
            .flatten()
            .all(|point| within(point, (0.0, 0.0)))
            && self
                .texts
                .iter()
                .all(|text| within(&text.center, text.half))
            && self.texts.iter().enumerate().all(apart)
    }

    pub(crate) fn drawn(self) -> Figure {
        let mut canvas = Canvas::new();
        for polygon in &self.fills {
            canvas.fill(polygon);
        }
        for path in &self.paths {
            canvas.line(path, self.line_width);
        }
        let mut labels = Vec::new();
        for text in &self.texts {
            canvas.text(
                &text.text,
                text.center,
                self.text_height,
                self.tilt,
                self.text_width,
            );
            labels.extend(text.value.map(|value| Label {
                value,
                cell: cell(text.center),
            }));
        }
        labels.sort_by_key(|label| label.cell);
        Figure { canvas, labels }
    }
}

/// The point of a circle in a direction, in radians.
pub(crate) fn on_circle(center: Point, radius: f32, angle: f32) -> Point {
    (
        center.0 + radius * angle.cos(),
        center.1 + radius * angle.sin(),
    )
}

#[allow(clippy::cast_precision_loss, reason = "112")]
fn side() -> f32 {
    SIDE as f32
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "clamped"
)]
fn cell(center: Point) -> usize {
    let index = |at: f32| ((at / side() * CELLS as f32).max(0.0) as usize).min(CELLS - 1);
    index(center.1) * CELLS + index(center.0)
}
