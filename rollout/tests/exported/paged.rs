//! The CUDA graph whose cache lies in blocks. ONNX Runtime has its PagedAttention for CUDA alone; here it is written out, as
//! its schema says, and with checks of what tables and slots must hold.
//!
//! `// T new tokens, N sequences, M blocks of the longest, H heads, K kv heads, D head dim`

use std::panic::{AssertUnwindSafe, catch_unwind};

use models::graph::cache::paged::BLOCK_SIZE;
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType::{Float32, Int32};

/// In place of `com.microsoft`, which has as many letters.
pub(crate) const DOMAIN: &str = "reference.tor";

pub(crate) fn operators() -> OperatorDomain {
    OperatorDomain::new(DOMAIN).unwrap().add(Reference).unwrap()
}

struct Reference;

struct ReferenceKernel {
    num_heads: usize,
    num_kv_heads: usize,
    scale: f32,
}

impl Operator for Reference {
    type Kernel<'attr> = ReferenceKernel;

    fn name(&self) -> &'static str {
        "PagedAttention"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let given = [
            Float32, Float32, Float32, Float32, Float32, Int32, Int32, Int32,
        ];
        let others = [
            Float32, Float32, Int32, Float32, Float32, Float32, Float32, Float32, Int32,
        ];
        let optional = others.map(OperatorInput::optional);
        given
            .map(OperatorInput::required)
            .into_iter()
            .chain(optional)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [Float32; 3].map(OperatorOutput::required)
    }

    fn create_kernel<'attr>(
        &self,
        context: &KernelContext<'attr>,
    ) -> ort::Result<Self::Kernel<'attr>> {
        let int = |name| context.get::<i64>(name).unwrap_or(-1);
        assert_eq!(int("do_rotary"), 0);
        Ok(ReferenceKernel {
            num_heads: int("num_heads") as usize,
            num_kv_heads: int("kv_num_heads") as usize,
            scale: context.get::<f32>("scale").unwrap(),
        })
    }
}

impl Kernel for ReferenceKernel {
    /// A check that fails must fail the run, not the process: ONNX Runtime's frames cannot be unwound.
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let run = AssertUnwindSafe(|| self.run(context));
        catch_unwind(run)
            .unwrap_or_else(|_| Err(ort::Error::new("a check of PagedAttention failed")))
    }
}

impl ReferenceKernel {
    fn run(&self, context: &ComputeContext) -> ort::Result<()> {
        let given = |index| context.input(index).unwrap().unwrap();
        let floats = |index| {
            let value = given(index);
            value
                .try_extract_tensor::<f32>()
                .map(|(_, all)| all.to_vec())
        };
        let ints = |index| {
            let value = given(index);
            let all = value
                .try_extract_tensor::<i32>()
                .map(|(_, all)| all.to_vec());
            all.map(|all| all.iter().map(|&it| i64::from(it)).collect::<Vec<i64>>())
        };
        let shape: Vec<i64> = given(3).try_extract_tensor::<f32>()?.0.to_vec();
        let mut sequences = Sequences {
            head_dim: shape[3] as usize,
            ends: ints(5)?,
            past: ints(6)?,
            table: ints(7)?,
            slots: ints(10)?,
            bounds: ints(16)?,
            keys: floats(3)?,
            values: floats(4)?,
        };
        assert_eq!(shape[1..3], [BLOCK_SIZE as i64, self.num_kv_heads as i64]);
        sequences.check(shape[0]);
        let [queries, keys, values] = [floats(0)?, floats(1)?, floats(2)?];
        sequences.write(&keys, &values);
        let attended = self.attend(&sequences, &queries);
        let width = (self.num_heads * sequences.head_dim) as i64;
        let tokens = attended.len() as i64 / width;
        let outputs = [
            (vec![tokens, width], attended),
            (shape.clone(), sequences.keys),
            (shape, sequences.values),
        ];
        for (index, (shape, numbers)) in outputs.into_iter().enumerate() {
            let mut output = context.output(index, shape)?.unwrap();
            output
                .try_extract_tensor_mut::<f32>()?
                .1
                .copy_from_slice(&numbers);
        }
        Ok(())
    }
}

/// Inputs of the operator that say which tokens there are.
struct Sequences {
    head_dim: usize,
    /// `[N + 1]`.
    ends: Vec<i64>,
    /// `[N]`.
    past: Vec<i64>,
    /// `[N, M]`.
    table: Vec<i64>,
    /// `[T]`.
    slots: Vec<i64>,
    bounds: Vec<i64>,
    /// `[blocks, BLOCK_SIZE, K, D]`.
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Sequences {
    fn len(&self) -> usize {
        self.past.len()
    }

    /// Blocks of sequence `index`, in the order of its tokens.
    fn blocks(&self, index: usize) -> &[i64] {
        let width = self.table.len() / self.len();
        &self.table[index * width..][..width]
    }

    /// Those of them that hold tokens.
    fn used(&self, index: usize) -> &[i64] {
        let new = self.ends[index + 1] - self.ends[index];
        let tokens = (self.past[index] + new) as usize;
        &self.blocks(index)[..tokens.div_ceil(BLOCK_SIZE)]
    }

    /// Where token `position` of sequence `index` lies.
    fn slot(&self, index: usize, position: i64) -> i64 {
        let size = BLOCK_SIZE as i64;
        self.blocks(index)[(position / size) as usize] * size + position % size
    }

    /// Sequence, position and row of each new token.
    fn tokens(&self) -> impl Iterator<Item = (usize, i64, usize)> {
        (0..self.len()).flat_map(|index| {
            let rows = self.ends[index]..self.ends[index + 1];
            rows.zip(self.past[index]..)
                .map(move |(row, position)| (index, position, row as usize))
        })
    }

    /// What the schema asks for, and what no schema can: that a block that one sequence writes is read by no other.
    fn check(&self, num_blocks: i64) {
        assert_eq!((self.ends.len(), self.ends[0]), (self.len() + 1, 0));
        assert!(
            self.ends.windows(2).all(|pair| pair[0] < pair[1]),
            "{:?}",
            self.ends
        );
        assert_eq!(self.ends[self.len()] as usize, self.slots.len());
        for index in 0..self.len() {
            let new = self.ends[index + 1] - self.ends[index];
            let all = self.past[index] + new;
            assert!(
                new <= self.bounds[0] && all <= self.bounds[1],
                "{:?}",
                self.bounds
            );
            let mut used = self.used(index).iter();
            assert!(used.all(|block| (0..num_blocks).contains(block)));
        }
        for (index, position, row) in self.tokens() {
            let slot = self.slots[row];
            if slot < 0 {
                continue; // it lies there already
            }
            assert_eq!(
                slot,
                self.slot(index, position),
                "token {position} of sequence {index}"
            );
            let block = slot / BLOCK_SIZE as i64;
            for other in (0..self.len()).filter(|&other| other != index) {
                assert!(
                    !self.used(other).contains(&block),
                    "block {block} is read by {other}"
                );
            }
        }
    }

    fn write(&mut self, keys: &[f32], values: &[f32]) {
        let width = keys.len() / self.slots.len();
        for (row, &slot) in self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| **slot >= 0)
        {
            let (from, to) = (row * width, slot as usize * width);
            self.keys[to..to + width].copy_from_slice(&keys[from..from + width]);
            self.values[to..to + width].copy_from_slice(&values[from..from + width]);
        }
    }
}

impl ReferenceKernel {
    /// Queries `[T, H * D]` to what they attend to `[T, H * D]`.
    fn attend(&self, sequences: &Sequences, queries: &[f32]) -> Vec<f32> {
        let head_dim = sequences.head_dim;
        let group = self.num_heads / self.num_kv_heads;
        let mut attended = Vec::with_capacity(queries.len());
        for (index, position, row) in sequences.tokens() {
            for head in 0..self.num_heads {
                let query = &queries[(row * self.num_heads + head) * head_dim..][..head_dim];
                let at = |position: i64| {
                    let slot = sequences.slot(index, position) as usize;
                    (slot * self.num_kv_heads + head / group) * head_dim
                };
                let score = |position: i64| {
                    let key = &sequences.keys[at(position)..][..head_dim];
                    let product: f32 = key.iter().zip(query).map(|(key, query)| key * query).sum();
                    product * self.scale
                };
                let scores: Vec<f32> = (0..=position).map(score).collect();
                let largest = scores.iter().copied().fold(f32::MIN, f32::max);
                let shares = scores.iter().map(|score| (score - largest).exp());
                let total: f32 = shares.clone().sum();
                let mut sum = vec![0.0; head_dim];
                for (share, position) in shares.zip(0..) {
                    let value = &sequences.values[at(position)..][..head_dim];
                    for (sum, value) in sum.iter_mut().zip(value) {
                        *sum += share / total * value;
                    }
                }
                attended.extend(sum);
            }
        }
        attended
    }
}
