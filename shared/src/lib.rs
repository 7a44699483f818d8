//! What the two programs agree on.

pub mod config;
