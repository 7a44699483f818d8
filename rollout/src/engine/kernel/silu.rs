//! `silu(gate) * up`: the gate of the MLP, `x * sigmoid(x)`.

use super::lanes::exp;

/// One row: `gate_up` [2F], gate first, to `out` [F].
pub(in crate::engine) fn silu_mul_row(gate_up: &[f32], out: &mut [f32]) {
    let (gate, up) = gate_up.split_at(out.len());
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                // exp(88) is finite: a gate further down gives -0 all the same.
                let e = exp(if -gate < 88.0 { -gate } else { 88.0 });
                *out = gate / (1.0 + e) * up;
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_formula() {
        let width = 37;
        let gate_up: Vec<f32> = (0..2 * width).map(|i| (i as f32 - 30.0) * 0.9).collect();
        let mut out = vec![0.0; width];
        silu_mul_row(&gate_up, &mut out);
        for (index, &got) in out.iter().enumerate() {
            let (gate, up) = (f64::from(gate_up[index]), f64::from(gate_up[index + width]));
            let expected = gate / (1.0 + (-gate).exp()) * up;
            assert!(
                (f64::from(got) - expected).abs() <= 1e-6 * expected.abs().max(1e-3),
                "{index}: {got} {expected}"
            );
        }
        let mut out = [1.0];
        silu_mul_row(&[-1e4, 3.0], &mut out);
        assert!(out[0].abs() < 1e-30);
    }
}
