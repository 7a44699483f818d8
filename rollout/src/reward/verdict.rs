//! What the verifier says about an answer, and why.

use serde::Serialize;

/// What kind of answer the gold answer is; it decides how a prediction is compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A letter of a multiple choice.
    Choice,
    /// Words, yes and no.
    Text,
    /// A rational number.
    Number,
    /// A number with a unit.
    Measure,
    /// A number of degrees.
    Degrees,
    /// A number with a percent sign.
    Percentage,
    /// Surds, powers of pi, functions, variables.
    Expression,
    /// `x = 4`, `y = 2x + 1`
    Equation,
    /// An inequality.
    Relation,
    /// `[0, 1)`, `0 \le x < 1`
    Interval,
    /// In brackets; its order counts.
    Tuple,
    /// In braces; its order does not count.
    Set,
    /// Bare values; their order does not count.
    List,
    /// `3:4:5`
    Ratio,
    /// Rows and columns.
    Matrix,
    /// Compared as text: empty, too long, or no formula that we read.
    Unread,
}

/// Why a prediction is taken or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Letter for letter.
    SameText,
    /// Another form of the same.
    SameValue,
    /// Something else.
    OtherValue,
    /// The response has no closed box.
    NoBox,
    /// Prediction or gold answer are empty.
    Empty,
    /// Longer than any answer, or control characters within.
    TooLong,
    /// The prediction is no formula that we read.
    NotRead,
    /// The gold answer is none.
    GoldNotRead,
    /// Division by zero and the like.
    Undefined,
    /// Out of fuel, or beyond a limit of size.
    TooMuchWork,
    /// What mathruler says; it gives no reasons.
    Mathruler,
    /// What the external verifier says.
    Command,
    /// The external verifier gave no answer.
    CommandFailed,
}

impl Reason {
    pub(super) fn of_value(is_same: bool) -> Self {
        if is_same {
            Self::SameValue
        } else {
            Self::OtherValue
        }
    }
}

/// Two answers compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Whether they say the same.
    pub is_same: bool,
    /// The gold answer's kind.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// Steps of work: the same on every machine.
    pub fuel: u32,
}

/// What the verifier says about a response.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether the mode that is asked for takes it, or the external verifier gives it all: an answer that is right in part is
    /// not right.
    pub is_right: bool,
    /// In [0, 1]; 0 or 1 but for an external verifier.
    pub accuracy: f32,
    /// The answer that was found in the response; `None` without one.
    pub extracted: Option<String>,
    /// The gold answer's kind.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// What `robust` says.
    pub robust: bool,
    /// What `compat` says.
    pub compat: bool,
    /// Steps of work of `robust`.
    pub fuel: u32,
}
