//! A trained tensor as layers hold it.

use tch::{Kind, Tensor};

use crate::operator;

/// The f32 values that the optimizer moves, and what products read: the same tensor or, where the model computes in bf16, a
/// rounded copy of it, which [`super::Parameters::refresh`] makes anew after each update. A frozen tensor has no f32 values
/// beside what products read.
#[derive(Debug)]
pub struct Weight {
    master: Tensor,
    compute: Option<Tensor>,
}

impl Weight {
    /// Handles to both.
    #[must_use]
    pub fn new(master: Tensor, compute: Option<Tensor>) -> Self {
        Self { master, compute }
    }

    /// What is trained, and what has the gradient.
    pub fn master(&self) -> &Tensor {
        &self.master
    }

    /// What products read.
    pub fn value(&self) -> &Tensor {
        self.compute.as_ref().unwrap_or(&self.master)
    }

    /// The same, with a way back to what is trained where libtorch makes a graph.
    pub fn in_graph(&self) -> Tensor {
        match &self.compute {
            Some(compute) if operator::is_making_graph() && self.is_trained() => {
                self.master.to_kind(compute.kind())
            }
            _ => self.value().shallow_clone(),
        }
    }

    /// Whether it is trained.
    pub fn is_trained(&self) -> bool {
        self.master.requires_grad()
    }

    /// What products compute in.
    pub fn kind(&self) -> Kind {
        self.value().kind()
    }
}
