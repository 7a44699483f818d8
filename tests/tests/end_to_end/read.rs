//! `learner read`: what it reads rises with the steps, and the same seed gives the same tower.

use std::path::Path;

use anyhow::{Context, Result};
use models::checkpoint::Checkpoint;
use tests::programs::{geo_mini, geo_mini_data, output};

/// The tower of the shipped model reads already; the head starts from nothing.
fn read(folder: &Path, data: &Path, out: &str, more: &[&str]) -> Result<String> {
    let (model, out) = (geo_mini(), folder.join(out));
    let text = |path: &Path| path.to_str().map(str::to_owned).context("UTF-8 path");
    let (model, data, out) = (text(&model)?, text(data)?, text(&out)?);
    let mut arguments = vec!["read", "--model", &model, "--data", &data, "--out", &out];
    arguments.extend(["--threads", "1", "--batch", "8", "--warmup-steps", "2"]);
    arguments.extend(["--lr", "1e-2"]);
    arguments.extend(more);
    let result = output("learner", &arguments)?;
    let said = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(
        result.status.success() || more.is_empty(),
        "{more:?}: {said}"
    );
    Ok(said)
}

/// "12.5 % of the labels read exactly at the end" -> 12.5
fn share(said: &str) -> Result<f64> {
    let (before, _) = said
        .split_once(" % of the labels read exactly at the end")
        .with_context(|| format!("no result in: {said}"))?;
    let number = before.rsplit(' ').next().unwrap_or_default();
    Ok(number.parse()?)
}

#[test]
fn it_learns_to_read_and_repeats_itself() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("read.parquet");
    let path = data.to_str().context("UTF-8 path")?;
    assert!(
        output("geo-mini", &["read", "--rows", "32", "--out", path])?
            .status
            .success()
    );
    let read = |out: &str, more: &[&str]| read(folder.path(), &data, out, more);

    // The share of the first step, before anything is learned, and the mean over more and more steps.
    let shares =
        ["1", "15", "60"].map(|steps| -> Result<f64> { share(&read(steps, &["--steps", steps])?) });
    let [first, early, late] = shares.map(|share| share.unwrap_or(f64::NAN));
    assert!(
        first < 1.0 && early > first + 5.0 && late > early + 5.0,
        "{first}, {early}, {late} % read after 1, 15 and 60 steps"
    );
    share(&read("again", &["--steps", "15"])?)?;
    share(&read("other", &["--steps", "15", "--seed", "1"])?)?;
    let weights = |out: &str| std::fs::read(folder.path().join(out).join("model.safetensors"));
    assert!(
        weights("15")? == weights("again")?,
        "the same seed gave other weights"
    );
    assert!(weights("15")? != weights("other")?);

    // The tower is trained, the decoder is left as it is.
    let before = Checkpoint::open(&geo_mini())?;
    let after = Checkpoint::open(&folder.path().join("15"))?;
    for name in before.names() {
        let is_equal = before.read_f32(name)? == after.read_f32(name)?;
        assert_eq!(is_equal, !name.starts_with("visual."), "{name}");
    }
    Ok(())
}

#[test]
fn a_data_set_without_labels_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let said = read(folder.path(), &geo_mini_data("train"), "out", &[])?;
    let line = said.lines().last().context("it said nothing")?;
    assert!(
        line.contains("train.parquet has no column token_labels"),
        "{line}"
    );
    assert!(!folder.path().join("out").exists());
    Ok(())
}
