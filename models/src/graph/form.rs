//! Forms of a graph: which operators it is made of, and with them how it sees its cache and its weights.

/// What a graph is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Standard operators and ONNX Runtime's: for export, opens in any ONNX Runtime. Rows padded to one width, a buffer each.
    Portable,
    /// Those of domain `tor` too, which `rollout` brings along: tokens packed without padding, a cache in shared blocks.
    Engine,
}
