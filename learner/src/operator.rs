//! Operators of libtorch that tch has no function for, called by name through libtorch's stable C interface.
//!
//! Each argument is a word of 64 bits: a number by its bits, a tensor as a handle that the callee takes over, an optional one
//! as null or a pointer to such a word, which the callee frees. Results come back in the same words.
#![allow(
    unsafe_code,
    reason = "the interface is one of C; what crosses it is checked against the operator's schema on the other side"
)]

use std::ffi::{CStr, c_char};

use anyhow::{Result, bail};
use tch::Tensor;

/// Words of the longest call.
const MAX_WORDS: usize = 16;

unsafe extern "C" {
    /// Zero when it worked; an exception is printed to standard error.
    fn aoti_torch_call_dispatcher(
        operator: *const c_char,
        overload: *const c_char,
        stack: *mut u64,
    ) -> i32;
    safe fn aoti_torch_grad_mode_is_enabled() -> bool;
}

/// Whether libtorch makes a graph in this thread now.
#[must_use]
pub fn is_making_graph() -> bool {
    aoti_torch_grad_mode_is_enabled()
}

/// An argument, by its type in the operator's schema.
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    /// `Tensor`.
    Tensor(&'a Tensor),
    /// `Tensor?` that is there.
    SomeTensor(&'a Tensor),
    /// `int` and `SymInt`.
    Int(i64),
    /// `float`.
    Float(f64),
    /// `bool`.
    Bool(bool),
    /// Any optional one that is not there.
    None,
}

/// Calls an operator all of whose results, `N` of them, are tensors. All arguments are given, defaults too.
pub fn call<const N: usize>(
    operator: &CStr,
    overload: &CStr,
    arguments: &[Argument<'_>],
) -> Result<[Tensor; N]> {
    if arguments.len() > MAX_WORDS || N > MAX_WORDS {
        bail!("{operator:?}: too many arguments or results");
    }
    let mut stack = [0; MAX_WORDS];
    for (word, argument) in stack.iter_mut().zip(arguments) {
        *word = argument.word()?;
    }
    // SAFETY: two C strings, and a stack that has room for all arguments and results; libtorch takes over what the words
    // point to, and checks their number and types against the schema by the operator's name.
    let code = unsafe {
        aoti_torch_call_dispatcher(operator.as_ptr(), overload.as_ptr(), stack.as_mut_ptr())
    };
    if code != 0 {
        bail!("libtorch refused {operator:?}; what it said stands above");
    }
    let results: [u64; N] = std::array::from_fn(|index| stack[index]);
    Ok(results.map(|word| {
        // SAFETY: each result of type Tensor is a handle, which is a C++ tensor that is ours now.
        unsafe { Tensor::from_ptr(word as *mut _) }
    }))
}

impl Argument<'_> {
    fn word(self) -> Result<u64> {
        Ok(match self {
            Self::Tensor(tensor) => handle(tensor),
            Self::SomeTensor(tensor) => {
                // SAFETY: a plain allocation, the kind that C++'s delete of a word frees on this platform.
                let place = unsafe { libc::malloc(size_of::<u64>()) }.cast::<u64>();
                if place.is_null() {
                    bail!("out of memory");
                }
                // SAFETY: just allocated, aligned for anything, and ours until the call.
                unsafe { place.write(handle(tensor)) };
                place as u64
            }
            Self::Int(value) => value.cast_unsigned(),
            Self::Float(value) => value.to_bits(),
            Self::Bool(value) => u64::from(value),
            Self::None => 0,
        })
    }
}

/// A new handle to the same tensor, for the callee to free.
fn handle(tensor: &Tensor) -> u64 {
    let own = std::mem::ManuallyDrop::new(tensor.shallow_clone());
    own.as_ptr() as u64
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::Argument as A;
    use super::*;

    #[test]
    fn every_type_of_argument_arrives() {
        tch::manual_seed(5);
        let noise = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        let part = call::<1>(
            c"aten::narrow",
            c"",
            &[A::Tensor(&noise(&[4, 6])), A::Int(1), A::Int(2), A::Int(3)],
        );
        assert_eq!(part.unwrap()[0].size(), [4, 3]);

        let [q, k, v] = [0; 3].map(|_| noise(&[1, 2, 5, 8]));
        let mask = noise(&[1, 1, 5, 5]);
        let got = call::<2>(
            c"aten::_scaled_dot_product_flash_attention_for_cpu",
            c"",
            &[
                A::Tensor(&q),
                A::Tensor(&k),
                A::Tensor(&v),
                A::Float(0.0),
                A::Bool(false),
                A::SomeTensor(&mask),
                A::None,
            ],
        )
        .unwrap();
        let expected = Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            &q,
            &k,
            &v,
            0.0,
            false,
            Some(&mask),
            None,
        );
        assert_eq!((&got[0], &got[1]), (&expected.0, &expected.1));
    }

    #[test]
    fn a_refusal_is_an_error_and_memory_is_given_back() {
        let x = Tensor::ones([3, 2], (Kind::Float, Device::Cpu));
        assert!(call::<1>(c"aten::mm", c"", &[A::Tensor(&x), A::Tensor(&x)]).is_err());
        assert!(call::<1>(c"aten::no_such_operator", c"", &[]).is_err());
        // Each call takes a handle of its own: the tensor stays whole.
        for _ in 0..100 {
            let sum = call::<1>(c"aten::mm", c"", &[A::Tensor(&x.tr()), A::Tensor(&x)]).unwrap();
            assert_eq!(sum[0].double_value(&[0, 0]), 3.0);
        }
    }

    #[test]
    fn knows_when_a_graph_is_made() {
        assert!(is_making_graph());
        assert!(!tch::no_grad(is_making_graph));
    }
}
