//! Memory that a device has left, and what an update's parts take of it.
#![allow(
    unsafe_code,
    reason = "asks the CUDA runtime, which libtorch has loaded, by name: tch has no function for it"
)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::transmute;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::{Result, bail};
use shared::config::Device;
use tch::Tensor;

use crate::update::Policy;

/// Success, of the CUDA runtime.
const CUDA_SUCCESS: c_int = 0;
const SHORTAGE: &str = "the device ran out of memory: --checkpoint-layers, a smaller --micro-batch-tokens, --freeze-vision or --lora-rank take less; `learner plan` says how much";
const GIB: f64 = (1_u64 << 30) as f64;

/// Bytes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// That nobody has taken.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// What a device has; `None` where nobody says: no such GPU, or no driver for it.
#[must_use]
pub fn room(device: Device) -> Option<Room> {
    match device {
        Device::Cpu => {
            let info = std::fs::read_to_string("/proc/meminfo").ok()?;
            Some(Room {
                free: kibibytes(&info, "MemAvailable:")? << 10,
                total: kibibytes(&info, "MemTotal:")? << 10,
            })
        }
        Device::Cuda(number) => cuda_room(c_int::from(number)),
    }
}

/// A number of `/proc/meminfo`.
fn kibibytes(info: &str, key: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// A function of the CUDA runtime, if that is loaded.
fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a C string; a look-up among what is loaded changes nothing.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

fn cuda_room(number: c_int) -> Option<Room> {
    type GetDevice = extern "C" fn(&mut c_int) -> c_int;
    type SetDevice = extern "C" fn(c_int) -> c_int;
    type MemGetInfo = extern "C" fn(&mut usize, &mut usize) -> c_int;
    let (get_device, set_device) = (symbol(c"cudaGetDevice")?, symbol(c"cudaSetDevice")?);
    let mem_get_info = symbol(c"cudaMemGetInfo")?;
    // SAFETY: cudaGetDevice(int *), which writes it.
    let get_device = unsafe { transmute::<*mut c_void, GetDevice>(get_device) };
    // SAFETY: cudaSetDevice(int).
    let set_device = unsafe { transmute::<*mut c_void, SetDevice>(set_device) };
    // SAFETY: cudaMemGetInfo(size_t *, size_t *), which writes both.
    let mem_get_info = unsafe { transmute::<*mut c_void, MemGetInfo>(mem_get_info) };

    let mut before = 0;
    if get_device(&mut before) != CUDA_SUCCESS || set_device(number) != CUDA_SUCCESS {
        return None;
    }
    let (mut free, mut total) = (0, 0);
    let outcome = mem_get_info(&mut free, &mut total);
    set_device(before);
    (outcome == CUDA_SUCCESS).then_some(Room {
        free: free as u64,
        total: total as u64,
    })
}

/// Does `work`; where memory runs out in it, an error that says what helps.
pub fn explained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // tch's functions panic with libtorch's message.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(error)) if is_shortage(&format!("{error:#}")) => Err(error.context(SHORTAGE)),
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            match text.filter(|text| is_shortage(text)) {
                Some(_) => bail!(SHORTAGE),
                None => resume_unwind(panic),
            }
        }
    }
}

/// Whether a message of libtorch is about memory that has run out.
fn is_shortage(message: &str) -> bool {
    [
        "out of memory",
        "can't allocate memory",
        "not enough memory",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// Bytes as GiB with one decimal, or as MiB where they are fewer.
#[must_use]
pub fn gib(bytes: u64) -> String {
    let gib = bytes as f64 / GIB;
    match gib < 1.0 {
        true => format!("{:.0} MiB", gib * 1024.0),
        false => format!("{gib:.1} GiB"),
    }
}

/// One line on what a GPU's memory went to: its parts as they are, and all else that this process took since `before`, which is
/// activations and what libtorch keeps for the next ones, so at its largest so far.
#[must_use]
pub fn report(policy: &Policy, device: Device, before: Room) -> Option<String> {
    let now = room(device)?;
    let taken = before.free.saturating_sub(now.free);
    let bytes = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
    let parameters = policy.model.parameters();
    let weights: u64 = parameters.all().map(|p| bytes(&p.tensor)).sum();
    let copies: u64 = parameters.all().map(|p| p.copy_bytes() as u64).sum();
    let gradients = parameters.trainable().map(|p| p.tensor.grad());
    let gradients: u64 = gradients.filter(Tensor::defined).map(|g| bytes(&g)).sum();
    let moments = policy.optimizer.num_bytes() as u64;
    // With LoRA the reference is the base: the same tensors.
    let reference: u64 = match (&policy.reference, parameters.lora()) {
        (Some(reference), None) => reference.parameters().all().map(|p| bytes(&p.tensor)).sum(),
        _ => 0,
    };
    let parts = weights + copies + gradients + moments + reference;
    Some(format!(
        "memory on {device} after the first step: {} of {} taken: weights {}, copy for products {}, gradients {}, AdamW {}, reference {}, activations and libtorch's own {}",
        gib(taken),
        gib(before.total),
        gib(weights),
        gib(copies),
        gib(gradients),
        gib(moments),
        gib(reference),
        gib(taken.saturating_sub(parts)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_has_some_memory_and_a_gpu_that_is_not_there_has_none() {
        let room = room(Device::Cpu).unwrap();
        assert!(0 < room.free && room.free <= room.total);
        assert_eq!(super::room(Device::Cuda(999)), None);
        let info = "MemTotal:       24000000 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(kibibytes(info, "MemAvailable:"), Some(22_000_000));
        assert_eq!(kibibytes(info, "MemFree:"), None);
    }

    #[test]
    fn running_out_of_memory_is_an_error_that_says_what_helps() {
        let said = |work: fn() -> Result<()>| format!("{:#}", explained(work).unwrap_err());
        let torch: fn() -> Result<()> = || panic!("{} out of memory. Tried to allocate", "CUDA");
        assert!(said(torch).contains("--checkpoint-layers"));
        assert!(said(|| bail!("CUDA out of memory")).contains("--checkpoint-layers"));
        assert_eq!(said(|| bail!("no such file")), "no such file");
        assert!(catch_unwind(|| explained(|| -> Result<()> { panic!("{}", "a bug") })).is_err());
        // What a CPU says: far more than there is.
        let huge: fn() -> Result<()> = || {
            let _ = Tensor::zeros([1 << 46], (tch::Kind::Double, tch::Device::Cpu));
            Ok(())
        };
        assert!(said(huge).contains("--checkpoint-layers"));
    }

    #[test]
    fn the_runtime_that_libtorch_loads_has_the_functions() {
        // Touched, so that the linker keeps libtorch.
        let _ = tch::get_num_threads();
        for name in [c"cudaGetDevice", c"cudaSetDevice", c"cudaMemGetInfo"] {
            assert!(symbol(name).is_some(), "{name:?}");
        }
    }
}
