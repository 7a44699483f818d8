//! Equations and inequalities that are true of every answer.

use super::equivalent;

/// What holds whatever the answer is says nothing of it; a name with its value, and a value in several forms, do.
#[test]
fn statements_that_say_nothing_are_wrong() {
    let wrong = [
        ("x=4", "4=4"),
        ("x=4", "4=4=4"),
        ("x=4", "4.0=4"),
        ("x=4", "\\frac{8}{2}=4"),
        ("x=4", "4 \\approx 4"),
        ("x=4", "4 \\text{ equals } 4"),
        ("x=4", "\\boxed{4=4}"),
        ("x=4", "(4=4)"),
        ("x=4", "x=x"),
        ("x=4", "x=x=x"),
        ("x=4", "x \\approx x"),
        ("x=4", "4=x=4"),
        ("x=4", "x=4=x"),
        ("x=4", "0=0"),
        ("x=4", "0x=0"),
        ("x=4", "x-x=0"),
        ("x=4", "x-4=x-4"),
        ("x=4", "4x=4x"),
        ("x=4", "4=4, x=x"),
        ("x=4", "x=4 \\text{ or } x=x"),
        ("4", "x=x"),
        ("4", "4x=4x"),
        ("0", "x=x"),
        ("x=3, x=5", "3=3, 5=5"),
        ("x=3, x=5", "x=x, x=x"),
        ("x=3, y=5", "3=3, 5=5"),
        ("x=3, y=5", "x=x, y=y"),
        ("(3, 5)", "x=x, y=y"),
        ("(x, y) = (3, 5)", "(x, y) = (x, y)"),
        ("(x, y) = (3, 5)", "(3, 5) = (3, 5)"),
        ("y=2x+1", "y=y"),
        ("y=2x+1", "2x+1=2x+1"),
        ("y=2x+1", "y-y=0"),
        ("y=x", "x=x"),
        ("x+y=5", "x+y=x+y"),
        ("x+y=5", "5=5"),
        ("x+y=5", "0=0"),
        ("x>2", "x=x"),
        ("x>2", "x>x-1"),
        ("x>2", "x \\ge x"),
        ("x>2", "2=2"),
        ("x>2", "3>2"),
        ("x \\ne 2", "2=2"),
        ("1<x<3", "1<2<3"),
        ("1<x<3", "1=1, 3=3"),
        ("\\frac{AB}{CD}=4", "4=4"),
        ("\\frac{AB}{CD}=4", "\\frac{AB}{CD}=\\frac{AB}{CD}"),
    ];
    let right = [
        ("x=4", "4"),
        ("x=4", "4=x"),
        ("x=4", "x=4=4"),
        ("x=4", "x=3+1=4"),
        ("x=4", "x=y=4"),
        ("x=4", "x=4 \\approx 4.0"),
        ("x=\\sqrt2", "\\sqrt2 \\approx 1.414"),
        ("x=\\sqrt2", "x=\\sqrt2 \\approx 1.41421356"),
        ("4", "4=4"),
        ("4", "3+1=4"),
        ("4", "x=4"),
        ("0", "3-3=0"),
        ("y=2x+1", "y=2x+1=1+2x"),
        ("x>2", "2<x"),
    ];
    let holds = |(gold, prediction): &(&str, &str)| equivalent(prediction, gold);
    let taken: Vec<_> = wrong.iter().filter(|pair| holds(pair)).collect();
    assert!(taken.is_empty(), "taken as right: {taken:?}");
    let lost: Vec<_> = right.iter().filter(|pair| !holds(pair)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}
