//! How a program ended.

use std::process::Output;

/// What it printed, of one that succeeded.
pub(crate) fn succeeded(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// One line, and a failure.
pub(crate) fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    text.lines().last().unwrap().to_owned()
}
