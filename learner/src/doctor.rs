//! `learner doctor`: what is installed, what would work, and what to do about what does not.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::device;
use crate::memory;
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
    let outcome = std::env::current_exe()
        .map_err(|error| format!("not probed: {error}"))
        .and_then(|program| probe(&program));
    match outcome {
        Ok(()) => "ok on the CPU with --dtype bf16; f32 is the default there".to_owned(),
        Err(reason) => format!("{reason}; training in f32 is not affected"),
    }
}

/// Has `program`, a learner, try bf16 products on the CPU; what it died of where they don't work.
pub fn probe(program: &Path) -> Result<(), String> {
    let status = Command::new(program)
        .arg(PROBE_COMMAND)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) => outcome(status),
        Err(error) => Err(format!("not probed: {error}")),
    }
}

fn outcome(status: ExitStatus) -> Result<(), String> {
    match (status.success(), status.signal()) {
        (true, _) => Ok(()),
        (false, Some(SIGILL)) => Err(
            "SIGILL: libtorch's bf16 product dies on this CPU, AMX not being enabled by the system"
                .to_owned(),
        ),
        (false, Some(signal)) => Err(format!("killed by signal {signal}")),
        (false, None) => Err("wrong result".to_owned()),
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
    match memory::room(shared::config::Device::Cpu) {
        Some(memory::Room { free, total }) => {
            format!("{} of {} available", memory::gib(free), memory::gib(total))
        }
        None => "unknown".to_owned(),
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
        let of = |raw| outcome(ExitStatus::from_raw(raw));
        assert!(of(SIGILL).unwrap_err().starts_with("SIGILL"));
        assert_eq!(of(9), Err("killed by signal 9".to_owned()));
        assert_eq!(of(0), Ok(()));
        assert_eq!(of(1 << 8), Err("wrong result".to_owned()));
        assert!(
            probe(Path::new("/no/such/program"))
                .unwrap_err()
                .starts_with("not probed")
        );
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
