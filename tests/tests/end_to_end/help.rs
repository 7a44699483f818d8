//! What `--help` says, word for word: a changed flag or default shows up in review.

use anyhow::Result;
use tests::programs::output;

fn help(program: &str, arguments: &[&str]) -> Result<String> {
    let result = output(program, arguments)?;
    assert!(result.status.success());
    Ok(String::from_utf8(result.stdout)?)
}

#[test]
fn short_help_of_every_command() -> Result<()> {
    for (program, command) in [
        ("rollout", ""),
        ("rollout", "eval"),
        ("rollout", "data"),
        ("learner", ""),
        ("learner", "sft"),
        ("models", "export"),
    ] {
        let mut arguments = vec![command, "-h"];
        arguments.retain(|argument| !argument.is_empty());
        let name = format!("{program} {command}").trim_end().replace(' ', "_");
        insta::assert_snapshot!(name, help(program, &arguments)?);
    }
    Ok(())
}
