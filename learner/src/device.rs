//! Where libtorch computes, and which libtorch that is.
#![allow(
    unsafe_code,
    reason = "loads libtorch's CUDA half at run time, so that one binary serves both"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use shared::config::{Device, Dtype};
use tch::Kind;

use crate::doctor;

const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100;
/// libtorch's GPU half; its own file, which a CPU build lacks.
pub const CUDA_LIBRARY: &str = "libtorch_cuda.so";

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlerror() -> *const c_char;
    /// Part of libtorch's stable C interface: major, minor and patch version in the three upper bytes.
    safe fn aoti_torch_abi_version() -> u64;
}

/// Tokens that pass through the network at once when nothing is said: a few thousand fill a CPU, and more only take memory.
const CPU_MICRO_BATCH: usize = 2048;
const GPU_MICRO_BATCH: usize = 16_384;

/// `--micro-batch-tokens`, or its default on a device.
#[must_use]
pub fn micro_batch_tokens(given: Option<usize>, device: Device) -> usize {
    given.unwrap_or(match device {
        Device::Cpu => CPU_MICRO_BATCH,
        Device::Cuda(_) => GPU_MICRO_BATCH,
    })
}

/// `--dtype`, or its default on a device.
#[must_use]
pub fn dtype(given: Option<Dtype>, device: Device) -> Dtype {
    given.unwrap_or(match device {
        Device::Cpu => Dtype::F32,
        Device::Cuda(_) => Dtype::Bf16,
    })
}

/// libtorch's type for a configured one. On a CPU bf16 products are tried first, in another process: where they die, they die there.
pub fn kind(dtype: Dtype, device: Device) -> Result<Kind> {
    if (dtype, device) == (Dtype::Bf16, Device::Cpu) {
        let outcome = doctor::probe(&std::env::current_exe()?);
        ensure!(
            outcome.is_ok(),
            "--dtype bf16 does not work on this CPU ({}): leave it out, or set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 in the environment",
            outcome.err().unwrap_or_default()
        );
    }
    Ok(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
    })
}

/// libtorch's device for a configured one. For a GPU it loads the CUDA library first; there is no fall-back.
pub fn open(device: Device) -> Result<tch::Device> {
    let Device::Cuda(number) = device else {
        return Ok(tch::Device::Cpu);
    };
    let folder = libtorch_folder().context("libtorch is not loaded from a file")?;
    load(&folder.join(CUDA_LIBRARY)).with_context(|| {
        format!("--device {device} needs {CUDA_LIBRARY} of libtorch {}: set LIBTORCH to a CUDA build of that version and build again", version())
    })?;
    let num_devices = tch::Cuda::device_count();
    if i64::from(number) >= num_devices {
        bail!(
            "--device {device}: libtorch sees {num_devices} GPUs (driver missing or too old? see nvidia-smi)"
        );
    }
    Ok(tch::Device::Cuda(usize::from(number)))
}

/// Until a GPU has done what it was told. On a CPU it has.
pub fn wait_for(device: tch::Device) {
    if let tch::Device::Cuda(number) = device {
        tch::Cuda::synchronize(i64::try_from(number).unwrap_or(0));
    }
}

/// The version of the libtorch in use.
#[must_use]
pub fn version() -> String {
    let [major, minor, patch, ..] = aoti_torch_abi_version().to_be_bytes();
    format!("{major}.{minor}.{patch}")
}

/// The folder that libtorch was loaded from.
#[must_use]
pub fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps
        .lines()
        .filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    let library = paths.find(|path| {
        path.file_name()
            .is_some_and(|name| name == "libtorch_cpu.so")
    })?;
    library.parent().map(Path::to_owned)
}

/// Loads a shared library for good, its symbols visible to all others.
pub fn load(path: &Path) -> Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: a valid C string; the library is libtorch's own other half, made to be loaded beside it.
    let handle = unsafe { dlopen(path.as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlopen failed in this thread just now, so there is a message, or null.
    let message = unsafe { dlerror() };
    if message.is_null() {
        bail!("cannot load {}", path.to_string_lossy());
    }
    // SAFETY: dlerror's message is a C string that lives until the next call in this thread.
    let message = unsafe { CStr::from_ptr(message) };
    bail!("{}", message.to_string_lossy());
}
