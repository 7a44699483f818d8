//! The figures: a shape at a random place, size and turn, and its labels where a reader expects them.

use std::f32::consts::{PI, TAU};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::font::Point;
use crate::layout::{Figure, Layout, on_circle};

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

/// Draws a shape with its values; tries places and sizes until every label fits.
pub(crate) fn draw(shape: Shape, values: &[u32], rng: &mut ChaCha8Rng) -> Figure {
    loop {
        let mut layout = Layout::new(rng);
        layout.shape(shape, values, rng);
        if layout.fits() {
            return layout.drawn();
        }
    }
}

impl Layout {
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

fn angle_of(from: Point, to: Point) -> f32 {
    (to.1 - from.1).atan2(to.0 - from.0)
}

fn sign(rng: &mut ChaCha8Rng) -> f32 {
    if rng.random_bool(0.5) { 1.0 } else { -1.0 }
}
