//! The figures: a shape at a random place, size and turn, and its labels where a reader expects them.

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

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One label on a side.
    Square,
    /// Two squares of different size, a label each; the larger square has the larger label.
    TwoSquares,
    /// A label on a horizontal and on a vertical side.
    Rectangle,
    /// A label on every side.
    Triangle,
    /// A label at two corners, a question mark at the third.
    TriangleAngles,
    /// Legs labelled, right angle marked.
    RightTriangle,
    /// The same with a question mark on the hypotenuse.
    RightTriangleUnknown,
    /// Radius drawn and labelled.
    Circle,
    /// Two separate segments.
    Segments,
    /// A ray from a straight line: one angle labelled, a question mark at the other.
    LineAngle,
}

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

/// Draws a shape with its values; tries places and sizes until every label fits.
pub(crate) fn draw(shape: Shape, values: &[u32], rng: &mut ChaCha8Rng) -> Figure {
    loop {
        let mut plan = Plan::new(rng);
        plan.shape(shape, values, rng);
        if plan.fits() {
            return plan.drawn();
        }
    }
}

/// A text to be drawn, with the half extents of its box.
struct Text {
    text: String,
    value: Option<u32>,
    center: Point,
    half: Point,
}

/// What will be drawn once it is known to fit.
struct Plan {
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

impl Plan {
    fn new(rng: &mut ChaCha8Rng) -> Self {
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

    fn shape(&mut self, shape: Shape, values: &[u32], rng: &mut ChaCha8Rng) {
        let value = |index: usize| values.get(index).copied().unwrap_or_default();
        match shape {
            Shape::Square => {
                let half = rng.random_range(20.0..33.0);
                let side = rng.random_range(0..4usize);
                self.box_with_labels((0.0, 0.0), (half, half), &[(side, value(0))]);
            }
            Shape::TwoSquares => self.two_squares(value(0), value(1), rng),
            Shape::Rectangle => {
                let half = (rng.random_range(20.0..36.0), rng.random_range(13.0..30.0));
                let sides = [
                    (2 * rng.random_range(0..2usize), value(0)),
                    (1 + 2 * rng.random_range(0..2usize), value(1)),
                ];
                self.box_with_labels((0.0, 0.0), half, &sides);
            }
            Shape::Triangle => {
                let corners = any_triangle(rng);
                self.polygon(&corners);
                for side in 0..3 {
                    self.beside(
                        corners[side],
                        corners[(side + 1) % 3],
                        (0.0, 0.0),
                        &value(side).to_string(),
                        Some(value(side)),
                    );
                }
            }
            Shape::TriangleAngles => self.triangle_angles(value(0), value(1), rng),
            Shape::RightTriangle | Shape::RightTriangleUnknown => {
                let is_unknown = shape == Shape::RightTriangleUnknown;
                self.right_triangle(value(0), value(1), is_unknown, rng);
            }
            Shape::Circle => self.circle(value(0), rng),
            Shape::Segments => self.segments(value(0), value(1), rng),
            Shape::LineAngle => self.line_angle(value(0), rng),
        }
    }

    fn two_squares(&mut self, larger: u32, smaller: u32, rng: &mut ChaCha8Rng) {
        let half = rng.random_range(15.0..20.0);
        let small = half * rng.random_range(0.55..0.8);
        let gap = rng.random_range(4.0..10.0);
        let flip = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
        // Labels above or below; both squares stand on one line or hang from one.
        let side = 2 * rng.random_range(0..2usize);
        self.box_with_labels(
            (-flip * (small + gap / 2.0), 0.0),
            (half, half),
            &[(side, larger)],
        );
        self.box_with_labels(
            (flip * (half + gap / 2.0), 0.0),
            (small, small),
            &[(side, smaller)],
        );
    }

    fn triangle_angles(&mut self, first: u32, second: u32, rng: &mut ChaCha8Rng) {
        let corners = any_triangle(rng);
        self.polygon(&corners);
        let start = rng.random_range(0..3usize);
        for (step, value) in [Some(first), Some(second), None].into_iter().enumerate() {
            let corner = corners[(start + step) % 3];
            let (left, right) = (
                corners[(start + step + 1) % 3],
                corners[(start + step + 2) % 3],
            );
            self.arc(corner, angle_of(corner, left), angle_of(corner, right), 8.0);
            let text = value.map_or_else(|| "?".to_owned(), |value| format!("{value}°"));
            // Outside, away from the middle, where it never touches a side.
            let length = corner.0.hypot(corner.1);
            self.label(corner, (corner.0 / length, corner.1 / length), &text, value);
        }
    }

    fn right_triangle(&mut self, first: u32, second: u32, is_unknown: bool, rng: &mut ChaCha8Rng) {
        let (width, height) = (rng.random_range(36.0..64.0), rng.random_range(32.0..60.0));
        let (flip_x, flip_y) = (sign(rng), sign(rng));
        let place = |x: f32, y: f32| (flip_x * (x - width / 3.0), flip_y * (y - height / 3.0));
        let (right, along, up) = (place(0.0, 0.0), place(width, 0.0), place(0.0, height));
        self.polygon(&[right, along, up]);
        let mark = 6.0;
        self.path(&[place(mark, 0.0), place(mark, mark), place(0.0, mark)]);
        self.beside(right, along, (0.0, 0.0), &first.to_string(), Some(first));
        self.beside(right, up, (0.0, 0.0), &second.to_string(), Some(second));
        if is_unknown {
            self.beside(along, up, (0.0, 0.0), "?", None);
        }
    }

    fn circle(&mut self, radius_label: u32, rng: &mut ChaCha8Rng) {
        let radius = rng.random_range(31.0..46.0);
        let rim: Vec<Point> = (0..=48u8)
            .map(|step| on_circle((0.0, 0.0), radius, f32::from(step) * TAU / 48.0))
            .collect();
        self.polygon(&rim[..48]);
        let angle = rng.random_range(0.0..TAU);
        let end = on_circle((0.0, 0.0), radius, angle);
        self.path(&[(0.0, 0.0), end]);
        // A dot at the centre.
        self.path(&[(-0.7, 0.0), (0.7, 0.0)]);
        self.path(&[(0.0, -0.7), (0.0, 0.7)]);
        let away = on_circle((0.0, 0.0), 4.0 * sign(rng), angle + PI / 2.0);
        self.beside(
            (0.0, 0.0),
            end,
            away,
            &radius_label.to_string(),
            Some(radius_label),
        );
    }

    fn segments(&mut self, first: u32, second: u32, rng: &mut ChaCha8Rng) {
        let apart = rng.random_range(20.0..32.0);
        for (value, height) in [(first, -apart), (second, apart)] {
            let half = rng.random_range(18.0..44.0);
            let shift = rng.random_range(-14.0..14.0);
            let (from, to) = ((shift - half, height), (shift + half, height));
            self.path(&[from, to]);
            for end in [from, to] {
                self.path(&[(end.0, end.1 - 4.0), (end.0, end.1 + 4.0)]);
            }
            let away = (shift, height + 100.0);
            self.beside(from, to, away, &value.to_string(), Some(value));
        }
    }

    fn line_angle(&mut self, angle: u32, rng: &mut ChaCha8Rng) {
        let half = rng.random_range(42.0..52.0);
        self.path(&[(-half, 0.0), (half, 0.0)]);
        let ray = -PI / 2.0 + rng.random_range(-0.3..0.3);
        let length = rng.random_range(36.0..50.0);
        self.path(&[(0.0, 0.0), on_circle((0.0, 0.0), length, ray)]);
        let is_right = rng.random_bool(0.5);
        let known = if is_right { 0.0 } else { PI };
        self.arc((0.0, 0.0), known, ray, 9.0);
        for (is_known, center) in [(is_right, 0.0), (!is_right, -PI)] {
            let middle = f32::midpoint(center, ray);
            let text = if is_known {
                format!("{angle}°")
            } else {
                "?".to_owned()
            };
            let at = on_circle((0.0, 0.0), 15.0, middle);
            self.label(
                at,
                (middle.cos(), middle.sin()),
                &text,
                is_known.then_some(angle),
            );
        }
    }

    /// A rectangle with labels on some of its sides: 0 top, 1 right, 2 bottom, 3 left.
    fn box_with_labels(&mut self, center: Point, half: Point, labels: &[(usize, u32)]) {
        let corner = |x: f32, y: f32| (center.0 + x * half.0, center.1 + y * half.1);
        let corners = [
            corner(-1.0, -1.0),
            corner(1.0, -1.0),
            corner(1.0, 1.0),
            corner(-1.0, 1.0),
        ];
        self.polygon(&corners);
        for &(side, value) in labels {
            self.beside(
                corners[side % 4],
                corners[(side + 1) % 4],
                center,
                &value.to_string(),
                Some(value),
            );
        }
    }

    fn polygon(&mut self, corners: &[Point]) {
        let mut path: Vec<Point> = corners.iter().map(|corner| self.placed(*corner)).collect();
        if self.is_filled {
            self.fills.push(path.clone());
        }
        path.extend_from_within(..1);
        self.paths.push(path);
    }

    fn path(&mut self, points: &[Point]) {
        let path = points.iter().map(|point| self.placed(*point)).collect();
        self.paths.push(path);
    }

    /// An arc around a corner, from one direction to another the short way.
    fn arc(&mut self, center: Point, from: f32, to: f32, radius: f32) {
        let turn = (to - from + PI).rem_euclid(TAU) - PI;
        let points: Vec<Point> = (0..=8u8)
            .map(|step| on_circle(center, radius, from + turn * f32::from(step) / 8.0))
            .collect();
        self.path(&points);
    }

    /// A label beside the middle of a side, on the side that is away from `inside`.
    fn beside(&mut self, from: Point, to: Point, inside: Point, text: &str, value: Option<u32>) {
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
    fn label(&mut self, from: Point, direction: Point, text: &str, value: Option<u32>) {
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
    fn fits(&self) -> bool {
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

    fn drawn(self) -> Figure {
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

/// A triangle around the origin, no corner too sharp.
fn any_triangle(rng: &mut ChaCha8Rng) -> [Point; 3] {
    let start = rng.random_range(0.0..TAU);
    std::array::from_fn(|corner| {
        let third = [0.0, TAU / 3.0, 2.0 * TAU / 3.0][corner];
        on_circle(
            (0.0, 0.0),
            rng.random_range(28.0..42.0),
            start + third + rng.random_range(-0.3..0.3),
        )
    })
}

fn on_circle(center: Point, radius: f32, angle: f32) -> Point {
    (
        center.0 + radius * angle.cos(),
        center.1 + radius * angle.sin(),
    )
}

fn angle_of(from: Point, to: Point) -> f32 {
    (to.1 - from.1).atan2(to.0 - from.0)
}

fn sign(rng: &mut ChaCha8Rng) -> f32 {
    if rng.random_bool(0.5) { 1.0 } else { -1.0 }
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
