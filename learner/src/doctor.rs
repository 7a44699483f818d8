//! `learner doctor`: what is installed, what would work, and what to do about what does not.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::device;
use crate::model::product;

/// Hidden subcommand that runs the product which may die.
pub const PROBE_COMMAND: &str = "probe-bf16";
const SIGILL: i32 = 4;

/// Writes the report.
pub fn report(out: &mut impl Write) -> Result<()> {
    let folder = device::libtorch_folder();
    let place = folder
        .as_ref()
        .map_or_else(|| "?".to_owned(), |folder| folder.display().to_string());
    writeln!(out, "learner     {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "libtorch    {} in {place}", device::version())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    writeln!(
        out,
        "threads     {} of {cores} cores (--threads N)",
        tch::get_num_threads()
    )?;
    writeln!(out, "instructions {}", instructions())?;
    writeln!(out, "f32         {}", f32_line())?;
    writeln!(out, "bf16        {}", bf16_line())?;
    writeln!(out, "memory      {}", memory())?;
    writeln!(out, "cuda        {}", cuda_line())?;
    Ok(())
}

/// One bf16 matrix product on the CPU, large enough for the AMX kernels. Where those are broken the process dies here.
pub fn probe_bf16() -> bool {
    let ones = Tensor::ones([128, 128], (Kind::BFloat16, tch::Device::Cpu));
    (ones
        .matmul(&ones)
        .to_kind(Kind::Float)
        .mean(Kind::Float)
        .double_value(&[])
        - 128.0)
        .abs()
        < 1.0
}

fn f32_line() -> String {
    let ones = Tensor::ones([64, 64], (Kind::Float, tch::Device::Cpu));
    let mean = ones.matmul(&ones).mean(Kind::Float).double_value(&[]);
    if (mean - 64.0).abs() < 1e-3 {
        format!(
            "ok, the default on the CPU; products by {}",
            product::library()
        )
    } else {
        format!("WRONG: 64 ones add up to {mean}; reinstall with scripts/setup.sh")
    }
}

fn bf16_line() -> String {
    let status = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .arg(PROBE_COMMAND)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    });
    match status {
        Ok(status) => probe_line(status),
        Err(error) => format!("not probed: {error}"),
    }
}

fn probe_line(status: ExitStatus) -> String {
    match (status.success(), status.signal()) {
        (true, _) => "ok on the CPU (not used there: f32 is exact)".to_owned(),
        (false, Some(SIGILL)) => {
            "SIGILL: libtorch's bf16 product dies on this CPU (AMX not enabled by the system); training in f32 is not affected".to_owned()
        }
        (false, Some(signal)) => format!("killed by signal {signal}; training in f32 is not affected"),
        (false, None) => "wrong result; training in f32 is not affected".to_owned(),
    }
}

fn instructions() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags"))
        .unwrap_or_default();
    let wanted = ["avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16"];
    let found: Vec<&str> = wanted
        .into_iter()
        .filter(|flag| flags.split_whitespace().any(|known| known == *flag))
        .collect();
    if found.is_empty() {
        "none of the fast ones".to_owned()
    } else {
        found.join(" ")
    }
}

fn memory() -> String {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gib = |key: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| {
            line.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<f64>()
                .ok()
        })
        .map(|kib| kib / f64::from(1 << 20))
    };
    match (gib("MemTotal:"), gib("MemAvailable:")) {
        (Some(total), Some(available)) => format!("{available:.1} of {total:.1} GiB available"),
        _ => "unknown".to_owned(),
    }
}

fn cuda_line() -> String {
    let Some(folder) = device::libtorch_folder() else {
        return "libtorch's folder is unknown".to_owned();
    };
    let library = folder.join(device::CUDA_LIBRARY);
    if !library.exists() {
        return format!(
            "no {} beside libtorch: --device cuda needs a CUDA build of libtorch {} (set LIBTORCH and build again)",
            device::CUDA_LIBRARY,
            device::version()
        );
    }
    match device::load(&library) {
        Ok(()) => format!("{} GPUs", tch::Cuda::device_count()),
        Err(error) => format!("{} does not load: {error}", device::CUDA_LIBRARY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_in_one_line_what_the_probe_died_of() {
        assert!(probe_line(ExitStatus::from_raw(SIGILL)).starts_with("SIGILL"));
        assert!(probe_line(ExitStatus::from_raw(9)).contains("signal 9"));
        assert!(probe_line(ExitStatus::from_raw(0)).starts_with("ok"));
        assert!(probe_line(ExitStatus::from_raw(1 << 8)).starts_with("wrong"));
    }

    #[test]
    fn reports_the_pinned_libtorch() {
        let mut report_text = Vec::new();
        report(&mut report_text).unwrap();
        let text = String::from_utf8(report_text).unwrap();
        assert!(
            text.contains("libtorch    2.") && text.lines().count() == 8,
            "{text}"
        );
    }
}
