//! `rollout doctor`: what is installed, what would work, and what to do about what does not.

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use crate::engine::{EngineKind, build_info, library, probe};
use crate::load::name;

/// Instruction sets that make a difference.
const FAST_INSTRUCTIONS: [&str; 5] = ["avx2", "fma", "avx512f", "avx512_vnni", "amx_int8"];

/// Writes the report.
///
/// # Errors
/// When `out` does not take it.
pub fn report(out: &mut impl Write) -> Result<()> {
    writeln!(out, "rollout       {}", env!("CARGO_PKG_VERSION"))?;
    let path = library::path();
    let place = path.canonicalize().unwrap_or(path);
    match build_info() {
        Ok(info) => {
            writeln!(out, "onnxruntime   {}", place.display())?;
            writeln!(
                out,
                "              version {}; {}",
                version(&place),
                first_part(info)
            )?;
        }
        Err(error) => writeln!(out, "onnxruntime   {error}")?,
    }
    for kind in [EngineKind::Cpu, EngineKind::Cuda, EngineKind::Trt] {
        let state = match probe(kind) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        writeln!(out, "engine {:<6} {state}", name(kind))?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    writeln!(out, "threads       {cores} cores (--threads N)")?;
    writeln!(
        out,
        "instructions  {}",
        instructions(&read("/proc/cpuinfo"))
    )?;
    writeln!(out, "memory        {}", memory(&read("/proc/meminfo")))?;
    Ok(())
}

/// The library's version, from the name that its exported symbols carry: its API only gives that of the headers it was
/// asked for, and the build information leaves it out.
fn version(library: &Path) -> String {
    const TAG: &[u8] = b"VERS_";
    let bytes = std::fs::read(library).unwrap_or_default();
    let digits = |start: usize| -> String {
        let rest = bytes[start..].iter().take(32).map(|&byte| char::from(byte));
        rest.take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect()
    };
    let mut tags = bytes
        .windows(TAG.len())
        .enumerate()
        .filter(|(_, window)| *window == TAG);
    let found = tags
        .find_map(|(at, _)| Some(digits(at + TAG.len())).filter(|version| version.contains('.')));
    found.unwrap_or_else(|| "unknown".to_owned())
}

/// The build information up to the compiler's flags.
fn first_part(info: &str) -> &str {
    info.split(", cmake").next().unwrap_or(info)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn instructions(cpuinfo: &str) -> String {
    let flags = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags"))
        .unwrap_or_default();
    let has = |name: &&str| flags.split_whitespace().any(|flag| flag == *name);
    let found: Vec<&str> = FAST_INSTRUCTIONS
        .into_iter()
        .filter(|name| has(name))
        .collect();
    if found.is_empty() {
        "none of the fast ones: decoding will be slow".to_owned()
    } else {
        found.join(" ")
    }
}

fn memory(meminfo: &str) -> String {
    let gib = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(kib / f64::from(1 << 20))
    };
    match (gib("MemTotal:"), gib("MemAvailable:")) {
        (Some(total), Some(available)) => format!("{available:.1} of {total:.1} GiB available"),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{instructions, memory, report};

    #[test]
    fn the_report_names_every_engine() {
        let mut out = Vec::new();
        report(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for engine in ["engine cpu", "engine cuda", "engine trt"] {
            assert!(text.contains(engine), "{text}");
        }
    }

    #[test]
    fn the_systems_own_tables_are_read() {
        assert_eq!(
            memory("MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n"),
            "1.0 of 2.0 GiB available"
        );
        assert_eq!(memory(""), "unknown");
        assert_eq!(
            instructions("flags\t\t: fpu avx2 avx512f\n"),
            "avx2 avx512f"
        );
    }
}
