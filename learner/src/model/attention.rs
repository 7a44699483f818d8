//! Self-attention of both towers over a flat list of tokens.
//!
//! N tokens, R rows, L queries per row, M keys per row, H heads, K kv heads, D head dim, E hidden.

use anyhow::Result;
use models::config::{TextConfig, VisionConfig};
use models::positions::{Slots, VisionPlan};
use tch::{Device, Kind, Tensor};

use super::linear::Linear;
use super::packed::Rows;
use super::parameters::Parameters;
use super::product::Input;
use super::rotary::Rotary;
use super::sets::{Row, sets};

/// Grouped-query attention of a decoder layer.
#[derive(Debug)]
pub struct TextAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    num_heads: i64,
    num_kv_heads: i64,
    head_dim: i64,
}

impl TextAttention {
    /// The layer under `name`.
    pub fn new(parameters: &Parameters, name: &str, config: &TextConfig) -> Result<Self> {
        let linear = |part: &str, has_bias: bool| {
            Linear::new(parameters, &format!("{name}.{part}"), has_bias)
        };
        Ok(Self {
            q_proj: linear("q_proj", true)?,
            k_proj: linear("k_proj", true)?,
            v_proj: linear("v_proj", true)?,
            o_proj: linear("o_proj", false)?,
            num_heads: i64::try_from(config.num_heads)?,
            num_kv_heads: i64::try_from(config.num_kv_heads)?,
            head_dim: i64::try_from(config.head_dim)?,
        })
    }

    /// x [N, E] -> [N, E]; the rows' tokens, one row set after the other, are the N tokens in order.
    pub fn forward(&self, x: &Tensor, rotary: &Rotary, rows: &[Rows]) -> Tensor {
        let x = Input::new(x);
        let q = rotary.apply(
            &self
                .q_proj
                .read(&x)
                .view([-1, self.num_heads, self.head_dim]),
        ); // [N, H, D]
        let k = rotary.apply(
            &self
                .k_proj
                .read(&x)
                .view([-1, self.num_kv_heads, self.head_dim]),
        ); // [N, K, D]
        let v = self
            .v_proj
            .read(&x)
            .view([-1, self.num_kv_heads, self.head_dim]); // [N, K, D]
        let outputs: Vec<Tensor> = rows
            .iter()
            .map(|rows| self.attend(&q, &k, &v, rows))
            .collect();
        self.o_proj.forward(&Tensor::cat(&outputs, 0)) // [N, E]
    }

    /// One set of rows: gather, attend, and put the tokens back into flat order; [n, H*D].
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows) -> Tensor {
        let q = q.index_select(0, &rows.queries).view([
            rows.num_rows,
            rows.num_queries,
            self.num_heads,
            self.head_dim,
        ]);
        let k = k.index_select(0, &rows.keys).view([
            rows.num_rows,
            rows.num_keys,
            self.num_kv_heads,
            self.head_dim,
        ]);
        let v = v.index_select(0, &rows.keys).view([
            rows.num_rows,
            rows.num_keys,
            self.num_kv_heads,
            self.head_dim,
        ]);
        let is_causal = rows.mask.is_none();
        let output = Tensor::scaled_dot_product_attention(
            &q.transpose(1, 2), // [R, H, L, D]
            &k.transpose(1, 2), // [R, K, M, D]
            &v.transpose(1, 2),
            rows.mask.as_ref(),
            0.0,
            is_causal,
            None,
            self.num_heads != self.num_kv_heads,
        );
        output
            .transpose(1, 2)
            .reshape([-1, self.num_heads * self.head_dim])
            .index_select(0, &rows.unslot)
    }
}

/// Full or windowed attention of a vision block, without causality.
#[derive(Debug)]
pub struct VisionAttention {
    qkv: Linear,
    proj: Linear,
    num_heads: i64,
    head_dim: i64,
}

impl VisionAttention {
    /// The layer under `name`.
    pub fn new(parameters: &Parameters, name: &str, config: &VisionConfig) -> Result<Self> {
        Ok(Self {
            qkv: Linear::new(parameters, &format!("{name}.qkv"), true)?,
            proj: Linear::new(parameters, &format!("{name}.proj"), true)?,
            num_heads: i64::try_from(config.num_heads)?,
            head_dim: i64::try_from(config.head_dim)?,
        })
    }

    /// x [N, E] -> [N, E]; patches see those of their own span only. The rows' patches, one set after the other, are the N
    /// patches in order.
    pub fn forward(&self, x: &Tensor, rotary: &Rotary, rows: &[VisionRows]) -> Tensor {
        let qkv = self
            .qkv
            .forward(x)
            .view([-1, 3, self.num_heads, self.head_dim]); // [N, 3, H, D]
        let q = rotary.apply(&qkv.select(1, 0)); // [N, H, D]
        let k = rotary.apply(&qkv.select(1, 1));
        let v = qkv.select(1, 2);
        let outputs: Vec<Tensor> = rows
            .iter()
            .map(|rows| self.attend(&q, &k, &v, rows))
            .collect();
        self.proj.forward(&Tensor::cat(&outputs, 0)) // [N, E]
    }

    /// One set of rows: gather, attend, and put the patches back into flat order; [n, H*D].
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, rows: &VisionRows) -> Tensor {
        let slot = |x: &Tensor| {
            x.index_select(0, &rows.slots)
                .view([-1, rows.width, self.num_heads, self.head_dim])
                .transpose(1, 2) // [R, H, L, D]
        };
        let output = Tensor::scaled_dot_product_attention(
            &slot(q),
            &slot(k),
            &slot(v),
            rows.mask.as_ref(),
            0.0,
            false,
            None,
            false,
        );
        output
            .transpose(1, 2)
            .reshape([-1, self.num_heads * self.head_dim]) // [R*L, H*D]
            .index_select(0, &rows.unslot)
    }
}

/// Spans of patches (windows or whole images), each of which attends to itself, as padded rows.
#[derive(Debug)]
pub struct VisionRows {
    slots: Tensor,        // [R*L]
    unslot: Tensor,       // [n]
    mask: Option<Tensor>, // [R, 1, 1, L], 0 or -inf; none: nothing is padded
    width: i64,           // L
}

impl VisionRows {
    /// The spans of those lengths, which follow each other; spans of much the same length share a set.
    pub fn sets(lengths: &[usize], device: Device) -> Result<Vec<Self>> {
        let rows: Vec<Row> = lengths.iter().map(|&own| Row { shared: 0, own }).collect();
        let mut first = 0;
        let mut made = Vec::new();
        for set in sets(&rows) {
            let lengths = &lengths[set];
            made.push(Self::new(first, &VisionPlan::padded(lengths), device)?);
            first += lengths.iter().sum::<usize>();
        }
        Ok(made)
    }

    /// The rows of a rectangle whose first patch is `first`.
    fn new(first: usize, padded: &Slots, device: Device) -> Result<Self> {
        let (first, width) = (i64::try_from(first)?, i64::try_from(padded.width)?);
        let hidden: Vec<bool> = padded.mask.iter().map(|&is_real| !is_real).collect();
        let mask = hidden.contains(&true).then(|| {
            let hidden = Tensor::from_slice(&hidden)
                .to_device(device)
                .view([-1, 1, 1, width]);
            Tensor::zeros_like(&hidden)
                .to_kind(Kind::Float)
                .masked_fill(&hidden, f64::NEG_INFINITY)
        });
        Ok(Self {
            slots: (Tensor::from_slice(&padded.slots) + first).to_device(device),
            unslot: Tensor::from_slice(&padded.unslot).to_device(device),
            mask,
            width,
        })
    }
}
