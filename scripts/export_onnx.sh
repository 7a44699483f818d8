#!/usr/bin/env bash
# Writes a checkpoint as an ONNX folder that any ONNX Runtime opens: vision.onnx, decoder.onnx, weights, tokenizer.
#
#   scripts/export_onnx.sh [CHECKPOINT] [OUT] [--run-dir RUN] [--form cpu|trt|cuda]
#
# CHECKPOINT: a model folder or a .safetensors file; by default the newest weights of the run (runs/default).
# OUT: the folder to write; by default `onnx` (`onnx-trt`, `onnx-cuda`) in the model folder, or in the run folder for a run's weights.
# Called again for new weights it replaces the weights alone: the graphs depend only on the model's dimensions.
set -euo pipefail
repository="$(cd "$(dirname "$0")/.." && pwd)"

target="${CARGO_TARGET_DIR:-$repository/target}"
for program in "$target/release/models" "$target/debug/models"; do
  if [ -x "$program" ]; then
    exec "$program" export "$@"
  fi
done
cargo build --quiet --release --manifest-path "$repository/Cargo.toml" -p models
exec "$target/release/models" export "$@"
