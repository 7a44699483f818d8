//! The question families: what is asked of which figure, the right way to the answer, and one wrong way.

use crate::figure::Shape;

/// Lengths on figures that carry two or more labels.
const LENGTHS: std::ops::RangeInclusive<u32> = 2..=12;
/// Lengths on figures with a single label: more of them, so that a split leaves enough on both sides.
const SINGLE_LENGTHS: std::ops::RangeInclusive<u32> = 2..=15;

/// A kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    SquarePerimeter,
    SquareArea,
    LargerSquare,
    RectanglePerimeter,
    RectangleArea,
    TrianglePerimeter,
    TriangleAngle,
    Hypotenuse,
    RightTriangleArea,
    Circumference,
    CircleArea,
    SegmentSum,
    SegmentDifference,
    LineAngle,
}

/// A worked way to an answer, right or wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) steps: String,
    pub(crate) answer: String,
}

impl Work {
    /// What a response looks like.
    pub(crate) fn solution(&self) -> String {
        format!("<think> {} </think> \\boxed{{{}}}", self.steps, self.answer)
    }

    fn new(steps: String, answer: impl ToString) -> Self {
        Self {
            steps,
            answer: answer.to_string(),
        }
    }
}

impl Family {
    pub(crate) const ALL: [Self; 14] = [
        Self::SquarePerimeter,
        Self::SquareArea,
        Self::LargerSquare,
        Self::RectanglePerimeter,
        Self::RectangleArea,
        Self::TrianglePerimeter,
        Self::TriangleAngle,
        Self::Hypotenuse,
        Self::RightTriangleArea,
        Self::Circumference,
        Self::CircleArea,
        Self::SegmentSum,
        Self::SegmentDifference,
        Self::LineAngle,
    ];

    pub(crate) fn question(self) -> &'static str {
        match self {
            Self::SquarePerimeter => "Find the perimeter of the square.",
            Self::SquareArea => "Find the area of the square.",
            Self::LargerSquare => "Find the area of the larger square.",
            Self::RectanglePerimeter => "Find the perimeter of the rectangle.",
            Self::RectangleArea => "Find the area of the rectangle.",
            Self::TrianglePerimeter => "Find the perimeter of the triangle.",
            Self::TriangleAngle => "Find the missing angle of the triangle.",
            Self::Hypotenuse => "Find the long side of the triangle.",
            Self::RightTriangleArea => "Find the area of the triangle.",
            Self::Circumference => "Find the perimeter of the circle.",
            Self::CircleArea => "Find the area of the circle.",
            Self::SegmentSum => "Find the sum of the segments.",
            Self::SegmentDifference => "Find the difference of the segments.",
            Self::LineAngle => "Find the missing angle on the line.",
        }
    }

    pub(crate) fn shape(self) -> Shape {
        match self {
            Self::SquarePerimeter | Self::SquareArea => Shape::Square,
            Self::LargerSquare => Shape::TwoSquares,
            Self::RectanglePerimeter | Self::RectangleArea => Shape::Rectangle,
            Self::TrianglePerimeter => Shape::Triangle,
            Self::TriangleAngle => Shape::TriangleAngles,
            Self::Hypotenuse => Shape::RightTriangleUnknown,
            Self::RightTriangleArea => Shape::RightTriangle,
            Self::Circumference | Self::CircleArea => Shape::Circle,
            Self::SegmentSum | Self::SegmentDifference => Shape::Segments,
            Self::LineAngle => Shape::LineAngle,
        }
    }

    /// Whether the places of the values on the figure mean something, so that they must not be shuffled.
    pub(crate) fn is_ordered(self) -> bool {
        self == Self::LargerSquare
    }

    /// Every combination of values, each in falling order.
    pub(crate) fn combinations(self) -> Vec<Vec<u32>> {
        let pairs = |is_kept: fn(u32, u32) -> bool| -> Vec<Vec<u32>> {
            LENGTHS
                .flat_map(|large| LENGTHS.map(move |small| (large, small)))
                .filter(|&(large, small)| small <= large && is_kept(large, small))
                .map(|(large, small)| vec![large, small])
                .collect()
        };
        match self {
            Self::SquarePerimeter | Self::SquareArea | Self::Circumference | Self::CircleArea => {
                SINGLE_LENGTHS.map(|length| vec![length]).collect()
            }
            Self::RectanglePerimeter
            | Self::RectangleArea
            | Self::Hypotenuse
            | Self::SegmentSum => pairs(|_, _| true),
            Self::LargerSquare | Self::SegmentDifference => pairs(|large, small| large > small),
            Self::RightTriangleArea => pairs(|large, small| (large * small).is_multiple_of(2)),
            Self::TrianglePerimeter => pairs(|_, _| true)
                .into_iter()
                .flat_map(|pair| {
                    let (large, middle) = (pair[0], pair[1]);
                    LENGTHS
                        .filter(move |&small| small <= middle && small + middle > large)
                        .map(move |small| vec![large, middle, small])
                })
                .collect(),
            Self::TriangleAngle => (6..=24u32)
                .flat_map(|large| (4..=large).map(move |small| vec![5 * large, 5 * small]))
                .filter(|pair| pair.iter().sum::<u32>() <= 160)
                .collect(),
            Self::LineAngle => (4..=32u32).map(|step| vec![5 * step]).collect(),
        }
    }

    /// The right way, from the labels in reading order.
    pub(crate) fn right(self, labels: &[u32]) -> Work {
        let [a, b, c] = three(labels);
        let (large, small) = (a.max(b), a.min(b));
        match self {
            Self::SquarePerimeter => Work::new(format!("4*{a}={}", 4 * a), 4 * a),
            Self::SquareArea => Work::new(format!("{a}*{a}={}", a * a), a * a),
            Self::LargerSquare => Work::new(
                format!("{large}>{small}, {large}*{large}={}", large * large),
                large * large,
            ),
            Self::RectanglePerimeter => Work::new(
                format!("{a}+{b}={}, 2*{}={}", a + b, a + b, 2 * (a + b)),
                2 * (a + b),
            ),
            Self::RectangleArea => Work::new(format!("{a}*{b}={}", a * b), a * b),
            Self::TrianglePerimeter => Work::new(
                format!("{a}+{b}={}, {}+{c}={}", a + b, a + b, a + b + c),
                a + b + c,
            ),
            Self::TriangleAngle => {
                let rest = 180u32.saturating_sub(a + b);
                Work::new(format!("{a}+{b}={}, 180-{}={rest}", a + b, a + b), rest)
            }
            Self::Hypotenuse => {
                let sum = a * a + b * b;
                let steps = format!(
                    "{a}*{a}={}, {b}*{b}={}, {}+{}={sum}",
                    a * a,
                    b * b,
                    a * a,
                    b * b
                );
                Work::new(steps, root(sum))
            }
            Self::RightTriangleArea => Work::new(
                format!("{a}*{b}={}, {}/2={}", a * b, a * b, a * b / 2),
                a * b / 2,
            ),
            Self::Circumference => Work::new(format!("2*{a}={}", 2 * a), format!("{}\\pi", 2 * a)),
            Self::CircleArea => Work::new(format!("{a}*{a}={}", a * a), format!("{}\\pi", a * a)),
            Self::SegmentSum => Work::new(format!("{a}+{b}={}", a + b), a + b),
            Self::SegmentDifference => Work::new(
                format!("{large}>{small}, {large}-{small}={}", large - small),
                large - small,
            ),
            Self::LineAngle => {
                let rest = 180u32.saturating_sub(a);
                Work::new(format!("180-{a}={rest}"), rest)
            }
        }
    }

    /// A wrong way from the same labels, such as a beginner takes.
    pub(crate) fn wrong(self, labels: &[u32]) -> Work {
        let [a, b, c] = three(labels);
        match self {
            Self::SquarePerimeter => Work::new(format!("2*{a}={}", 2 * a), 2 * a),
            Self::SquareArea => Work::new(format!("4*{a}={}", 4 * a), 4 * a),
            Self::LargerSquare => {
                let (large, small) = (a.max(b), a.min(b));
                Work::new(
                    format!("{large}>{small}, 4*{large}={}", 4 * large),
                    4 * large,
                )
            }
            Self::RectanglePerimeter
            | Self::RectangleArea
            | Self::RightTriangleArea
            | Self::Hypotenuse => Work::new(format!("{a}+{b}={}", a + b), a + b),
            Self::TrianglePerimeter => {
                let product = a * b;
                Work::new(
                    format!("{a}*{b}={product}, {product}+{c}={}", product + c),
                    product + c,
                )
            }
            Self::TriangleAngle => Work::new(format!("{a}+{b}={}", a + b), a + b),
            Self::Circumference => {
                Work::new(format!("{a}*{a}={}", a * a), format!("{}\\pi", a * a))
            }
            Self::CircleArea => Work::new(format!("2*{a}={}", 2 * a), format!("{}\\pi", 2 * a)),
            Self::SegmentSum => Work::new(format!("{a}*{b}={}", a * b), a * b),
            Self::SegmentDifference => Work::new(format!("{a}+{b}={}", a + b), a + b),
            Self::LineAngle => {
                let rest = 360 - a;
                Work::new(format!("360-{a}={rest}"), rest)
            }
        }
    }
}

/// Up to three labels; absent ones are 0 and unused.
fn three(labels: &[u32]) -> [u32; 3] {
    std::array::from_fn(|index| labels.get(index).copied().unwrap_or_default())
}

/// A square root in LaTeX; whole where it is whole.
fn root(square: u32) -> String {
    let whole = square.isqrt();
    if whole * whole == square {
        whole.to_string()
    } else {
        format!("\\sqrt{{{square}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_an_answer_within_the_labels_range() {
        for family in Family::ALL {
            let combinations = family.combinations();
            assert!(
                combinations.len() >= 14,
                "{family:?}: {}",
                combinations.len()
            );
            for values in combinations {
                assert!(
                    values.iter().all(|&value| (1..200).contains(&value)),
                    "{family:?} {values:?}"
                );
                let right = family.right(&values);
                assert!(
                    !right.answer.starts_with('0') && !right.answer.starts_with('-'),
                    "{family:?} {values:?}"
                );
            }
        }
    }

    #[test]
    fn worked_answers() {
        let right = |family: Family, labels: &[u32]| family.right(labels).solution();
        assert_eq!(
            right(Family::Hypotenuse, &[3, 4]),
            "<think> 3*3=9, 4*4=16, 9+16=25 </think> \\boxed{5}"
        );
        assert_eq!(
            right(Family::Hypotenuse, &[2, 3]),
            "<think> 2*2=4, 3*3=9, 4+9=13 </think> \\boxed{\\sqrt{13}}"
        );
        assert_eq!(
            right(Family::CircleArea, &[6]),
            "<think> 6*6=36 </think> \\boxed{36\\pi}"
        );
        assert_eq!(
            right(Family::TriangleAngle, &[35, 60]),
            "<think> 35+60=95, 180-95=85 </think> \\boxed{85}"
        );
        assert_eq!(
            right(Family::SegmentDifference, &[4, 11]),
            "<think> 11>4, 11-4=7 </think> \\boxed{7}"
        );
    }
}
