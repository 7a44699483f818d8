//! `rollout doctor`: what is installed, what would work, and what to do about what does not.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use models::config::ModelConfig;
use shared::config::RolloutArgs;

use crate::available::{Available, meminfo_bytes};
use crate::engine::{EngineKind, build_info, library, probe};
use crate::load::name;
use crate::memory::{Load, MemoryPlan, gib};

/// Instruction sets that make a difference.
const FAST_INSTRUCTIONS: [&str; 8] = [
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
];

/// Writes the report, with the memory plan of a run of `model` under `args`.
///
/// # Errors
/// When `out` does not take it.
pub fn report(model: &Path, args: &RolloutArgs, out: &mut impl Write) -> Result<()> {
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
    let (found, meaning) = instructions(&read("/proc/cpuinfo"));
    writeln!(out, "instructions  {found}")?;
    writeln!(out, "              {meaning}")?;
    writeln!(out, "memory        {}", memory(&read("/proc/meminfo")))?;
    plan(model, args, out)
}

/// What a run needs, and whether it is there.
fn plan(model: &Path, args: &RolloutArgs, out: &mut impl Write) -> Result<()> {
    let config = match ModelConfig::from_dir(model) {
        Ok(config) => config,
        Err(error) => {
            writeln!(out, "memory plan   none: {error}")?;
            return Ok(());
        }
    };
    let plan = MemoryPlan::new(&config, Load::from(args));
    writeln!(out, "memory plan   {} under engine cpu:", model.display())?;
    write!(out, "{plan}")?;
    let verdict = Available::now().map_or_else(
        || "the system does not say how much is available".to_owned(),
        |available| plan.advice(&available),
    );
    writeln!(out, "              {verdict}")?;
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

/// The fast instruction sets of this processor, and what they mean for the engines.
fn instructions(cpuinfo: &str) -> (String, String) {
    let flags = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags"))
        .unwrap_or_default();
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let found: Vec<&str> = FAST_INSTRUCTIONS
        .into_iter()
        .filter(|name| has(name))
        .collect();
    let found = if found.is_empty() {
        "none of the fast ones".to_owned()
    } else {
        found.join(" ")
    };
    let f32_line = if has("avx512f") {
        "engine cpu computes in f32 with AVX-512, its fastest way"
    } else if has("avx2") && has("fma") {
        "engine cpu computes in f32 with AVX2, at about half the speed of AVX-512"
    } else {
        "engine cpu computes in f32 without AVX2: decoding will be slow"
    };
    let unused = if has("amx_tile") {
        "; AMX serves int8 and bf16, which it does not use"
    } else {
        ""
    };
    (found, format!("{f32_line}{unused}"))
}

fn memory(meminfo: &str) -> String {
    let bytes = |key| meminfo_bytes(meminfo, key);
    let (Some(total), Some(free)) = (bytes("MemTotal:"), bytes("MemAvailable:")) else {
        return "unknown".to_owned();
    };
    let line = format!("{} of {} available", gib(free), gib(total));
    match Available::now() {
        Some(limit) if limit.bytes < free => {
            format!("{line}; {} by {}", gib(limit.bytes), limit.source)
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shared::config::RolloutArgs;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        rollout: RolloutArgs,
    }

    fn text(model: &Path, flags: &[&str]) -> String {
        let flags = Flags::parse_from([&["doctor"], flags].concat());
        let mut out = Vec::new();
        report(model, &flags.rollout, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_report_names_every_engine() {
        let text = text(Path::new("/nowhere"), &[]);
        for part in [
            "engine cpu",
            "engine cuda",
            "engine trt",
            "memory plan   none: no config.json in /nowhere",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_model_gets_its_memory_plan() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/qwen2_5_vl/model");
        let small = text(&model, &["--rows", "8"]);
        assert!(
            small.contains("--rows 8 x (") && small.contains("fits: "),
            "{small}"
        );
        let large = text(&model, &["--rows", "4000000000"]);
        let advice = "fits with fewer rows at a time";
        assert!(
            large.contains(advice) && large.contains("lower --rows to "),
            "{large}"
        );
    }

    #[test]
    fn the_systems_own_tables_are_read() {
        assert!(
            memory("MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n")
                .starts_with("1.0 GiB of 2.0 GiB available")
        );
        assert_eq!(memory(""), "unknown");
    }

    #[test]
    fn instructions_are_named_with_what_they_mean() {
        let line = |flags: &str| instructions(&format!("model name : x\nflags\t\t: {flags}\n"));
        let (found, meaning) = line("fpu avx2 fma avx512f amx_tile amx_int8");
        assert_eq!(found, "avx2 fma avx512f amx_tile amx_int8");
        assert!(
            meaning.contains("with AVX-512") && meaning.contains("AMX"),
            "{meaning}"
        );
        let (_, meaning) = line("fpu avx2 fma");
        assert!(
            meaning.contains("with AVX2") && !meaning.contains("AMX"),
            "{meaning}"
        );
        let (found, meaning) = line("fpu");
        assert_eq!(found, "none of the fast ones");
        assert!(meaning.contains("slow"), "{meaning}");
    }
}
