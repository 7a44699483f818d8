//! A stroke font of our own: digits, question mark, degree sign.

/// A point: x to the right, y down.
pub(crate) type Point = (f32, f32);

/// Width of a digit for a height of one.
const DIGIT_WIDTH: f32 = 0.6;
/// Width of the degree sign for a height of one.
const DEGREE_WIDTH: f32 = 0.28;
/// Gap between glyphs for a height of one.
const GAP: f32 = 0.16;
/// Degrees per piece of a curve.
const STEP: f32 = 15.0;

/// A pen movement in a box of height one.
enum Stroke {
    Line(&'static [Point]),
    /// Part of an ellipse; angles in degrees, clockwise from the right.
    Arc {
        center: Point,
        radius: Point,
        from: f32,
        to: f32,
    },
}

use Stroke::{Arc, Line};

/// Width of a text of height one.
pub(crate) fn width(text: &str) -> f32 {
    let glyphs: f32 = text.chars().map(|glyph| advance(glyph) + GAP).sum();
    (glyphs - GAP).max(0.0)
}

/// The pen's paths for a text of height one, centred on the origin.
pub(crate) fn outline(text: &str) -> Vec<Vec<Point>> {
    let mut left = -width(text) / 2.0;
    let mut paths = Vec::new();
    for glyph in text.chars() {
        for stroke in strokes(glyph) {
            paths.push(
                path(&stroke)
                    .into_iter()
                    .map(|(x, y)| (x + left, y - 0.5))
                    .collect(),
            );
        }
        left += advance(glyph) + GAP;
    }
    paths
}

fn advance(glyph: char) -> f32 {
    if glyph == '°' {
        DEGREE_WIDTH
    } else {
        DIGIT_WIDTH
    }
}

fn path(stroke: &Stroke) -> Vec<Point> {
    match stroke {
        Line(points) => points.to_vec(),
        Arc {
            center,
            radius,
            from,
            to,
        } => {
            let mut points = Vec::new();
            let mut angle = *from;
            while angle < *to {
                points.push(on_ellipse(*center, *radius, angle));
                angle += STEP;
            }
            points.push(on_ellipse(*center, *radius, *to));
            points
        }
    }
}

fn on_ellipse(center: Point, radius: Point, degrees: f32) -> Point {
    let (sin, cos) = degrees.to_radians().sin_cos();
    (center.0 + radius.0 * cos, center.1 + radius.1 * sin)
}

fn strokes(glyph: char) -> Vec<Stroke> {
    let ring = |center, radius| Arc {
        center,
        radius,
        from: 0.0,
        to: 360.0,
    };
    let arc = |center, radius, from, to| Arc {
        center,
        radius,
        from,
        to,
    };
    match glyph {
        '0' => vec![ring((0.30, 0.50), (0.28, 0.48))],
        '1' => vec![
            Line(&[(0.10, 0.20), (0.34, 0.02), (0.34, 0.98)]),
            Line(&[(0.12, 0.98), (0.56, 0.98)]),
        ],
        '2' => vec![
            arc((0.30, 0.28), (0.26, 0.26), 180.0, 400.0),
            Line(&[(0.50, 0.45), (0.03, 0.98), (0.58, 0.98)]),
        ],
        '3' => vec![
            arc((0.28, 0.26), (0.25, 0.24), 200.0, 450.0),
            arc((0.28, 0.74), (0.29, 0.24), 270.0, 520.0),
        ],
        '4' => vec![Line(&[
            (0.44, 0.98),
            (0.44, 0.02),
            (0.02, 0.68),
            (0.60, 0.68),
        ])],
        '5' => vec![
            Line(&[(0.54, 0.02), (0.12, 0.02), (0.08, 0.45)]),
            arc((0.29, 0.68), (0.28, 0.30), 230.0, 510.0),
        ],
        '6' => vec![
            ring((0.31, 0.69), (0.27, 0.29)),
            Line(&[(0.50, 0.02), (0.26, 0.18), (0.10, 0.40), (0.04, 0.66)]),
        ],
        '7' => vec![Line(&[(0.03, 0.02), (0.57, 0.02), (0.22, 0.98)])],
        '8' => vec![
            ring((0.30, 0.26), (0.23, 0.24)),
            ring((0.30, 0.74), (0.28, 0.24)),
        ],
        '9' => vec![
            ring((0.29, 0.31), (0.27, 0.29)),
            Line(&[(0.56, 0.34), (0.50, 0.60), (0.34, 0.82), (0.10, 0.98)]),
        ],
        '°' => vec![ring((0.14, 0.14), (0.12, 0.12))],
        _ => vec![
            arc((0.30, 0.27), (0.25, 0.25), 180.0, 420.0),
            Line(&[(0.42, 0.49), (0.30, 0.60), (0.30, 0.72)]),
            ring((0.30, 0.94), (0.03, 0.03)),
        ],
    }
}
