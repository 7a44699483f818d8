//! A session of the decoder, with what stays bound to it from pass to pass.
//!
//! Weights and what the head measures by are bound once, the cache when other rows are meant; a pass binds its tokens and what
//! comes out of it.

use std::ops::Range;

use ort::memory::MemoryInfo;
use ort::session::{IoBinding, Session, SessionOutputs};
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor};

use super::memory::Memory;
use super::row_heads::{HeadSettings, STATISTICS};
use super::runtime::runtime;
use super::slots::Slots;
use super::weights::Weights;
use crate::error::{Error, Result};

const CONTEXT: &str = "running the decoder";

/// The cache and the weights that it runs over must outlive its last run.
#[derive(Debug)]
pub(super) struct RowSession {
    io: IoBinding,
    session: Session,
    /// Rows of the cache that are bound.
    rows: Range<usize>,
    has_head: bool,
}

impl RowSession {
    /// Binds what stays.
    pub(super) fn new(session: Session, weights: &Weights) -> Result<Self> {
        let mut io = session.create_binding().map_err(runtime(CONTEXT))?;
        weights.bind(&mut io)?;
        Ok(Self {
            io,
            session,
            rows: 0..0,
            has_head: false,
        })
    }

    /// The head's settings are to be bound anew.
    pub(super) fn forget_head(&mut self) {
        self.has_head = false;
    }

    /// Binds the head's settings where they are not.
    pub(super) fn bind_head(&mut self, head: &HeadSettings) -> Result<()> {
        if self.has_head {
            return Ok(());
        }
        self.bind("temperature", [1], vec![head.temperature])?;
        self.bind("nucleus_p", [1], vec![head.nucleus_p])?;
        let banned = head.banned_input();
        self.bind("banned", [banned.len()], banned)?;
        self.has_head = true;
        Ok(())
    }

    /// Binds rows of the cache where it is not those that are bound.
    pub(super) fn bind_rows(
        &mut self,
        slots: &mut Slots,
        memory: &Memory,
        rows: &Range<usize>,
    ) -> Result<()> {
        if self.rows != *rows {
            self.rows = 0..0; // of an error half of them are left
            slots.bind(memory, &mut self.io, rows)?;
            self.rows = rows.clone();
        }
        Ok(())
    }

    /// Binds an input.
    pub(super) fn bind<T, const RANK: usize>(
        &mut self,
        name: &str,
        shape: [usize; RANK],
        values: Vec<T>,
    ) -> Result<()>
    where
        T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
    {
        let tensor = Tensor::from_array((shape, values)).map_err(runtime(CONTEXT))?;
        self.bind_tensor(name, &tensor.upcast())
    }

    /// Binds an input that is a tensor already.
    pub(super) fn bind_tensor(&mut self, name: &str, tensor: &DynTensor) -> Result<()> {
        self.io.bind_input(name, tensor).map_err(runtime(CONTEXT))
    }

    /// Runs over what is bound. Logits stay in `memory`, all else comes to the host.
    pub(super) fn run(&mut self, memory: &Memory) -> Result<SessionOutputs<'_>> {
        // Anew each time: what a run has put there would be written over by the next, or would be too small for it.
        let of_candidates = ["candidate_ids", "candidate_logits"];
        for name in STATISTICS.into_iter().chain(of_candidates) {
            self.io
                .bind_output_to_device(name, &MemoryInfo::default())
                .map_err(runtime(CONTEXT))?;
        }
        self.io
            .bind_output_to_device("logits", memory.info())
            .map_err(runtime(CONTEXT))?;
        self.session.run_binding(&self.io).map_err(runtime(CONTEXT))
    }
}

/// The numbers of an output on the host.
pub(super) fn read<T: PrimitiveTensorElementType + Clone>(
    outputs: &SessionOutputs<'_>,
    name: &str,
) -> Result<Vec<T>> {
    let output = outputs.get(name).ok_or_else(|| missing(name))?;
    let (_, values) = output.try_extract_tensor::<T>().map_err(runtime(CONTEXT))?;
    Ok(values.to_vec())
}

/// Takes an output where it lies.
pub(super) fn take(outputs: &mut SessionOutputs<'_>, name: &str) -> Result<DynTensor> {
    let output = outputs.remove(name).ok_or_else(|| missing(name))?;
    output.downcast().map_err(runtime(CONTEXT))
}

fn missing(output: &str) -> Error {
    Error::Runtime {
        context: CONTEXT,
        message: format!("the graph has no output `{output}`"),
    }
}
