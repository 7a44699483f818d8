//! `silu(gate) * up`: the gate of the MLP, `x * sigmoid(x)`.

use pulp::NullaryFnOnce;

use super::lanes::exp;

/// Rows of `gate_up` [2F], gate first, to rows of `out` [F].
pub(in crate::engine) struct SiluMul<'a> {
    pub(in crate::engine) gate_up: &'a [f32],
    pub(in crate::engine) out: &'a mut [f32],
    /// F.
    pub(in crate::engine) width: usize,
}

impl NullaryFnOnce for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let rows = self.gate_up.chunks_exact(2 * self.width);
        for (gate_up, out) in rows.zip(self.out.chunks_exact_mut(self.width)) {
            let (gate, up) = gate_up.split_at(self.width);
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                *out = silu_mul(gate, up);
            }
        }
    }
}

/// `silu(gate) * up`.
#[inline(always)]
pub(in crate::engine) fn silu_mul(gate: f32, up: f32) -> f32 {
    // exp(88) is finite: a gate further down gives -0 all the same.
    let e = exp(if -gate < 88.0 { -gate } else { 88.0 });
    gate / (1.0 + e) * up
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_formula() {
        let width = 37;
        let gate_up: Vec<f32> = (0..2 * width).map(|i| (i as f32 - 30.0) * 0.9).collect();
        let mut out = vec![0.0; width];
        let rows = SiluMul {
            gate_up: &gate_up,
            out: &mut out,
            width,
        };
        pulp::Arch::new().dispatch(rows);
        for (index, &got) in out.iter().enumerate() {
            let (gate, up) = (f64::from(gate_up[index]), f64::from(gate_up[index + width]));
            let expected = gate / (1.0 + (-gate).exp()) * up;
            assert!(
                (f64::from(got) - expected).abs() <= 1e-6 * expected.abs().max(1e-3),
                "{index}: {got} {expected}"
            );
        }
        let mut out = [1.0];
        SiluMul {
            gate_up: &[-1e4, 3.0],
            out: &mut out,
            width: 1,
        }
        .call();
        assert!(out[0].abs() < 1e-30);
    }
}
