#!/usr/bin/env bash
# Everything that must pass: set-up, formatting, lints, and all tests (unit, parity, loom, end to end, crash).
#
#   scripts/test.sh              all of it
#   PARITY_FIXTURES=DIR scripts/test.sh   the parity tests on another set of fixtures in the layout of tests/data/qwen2_5_vl
#
# Tests that need a GPU are not part of this: they are ignored here, or end at once where none is. scripts/gpu_check.sh runs them.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

scripts/setup.sh

# The exported graphs are also put before the reference checker and a plain ONNX Runtime, which are Python packages.
# Where they can't be had the tests that want them say so and skip.
checker=.native/onnx-checker
if [ ! -x "$checker/bin/python" ] || ! "$checker/bin/python" -c 'import onnx, onnxruntime' 2>/dev/null; then
  say "installing the ONNX checker (tests only)"
  rm -rf "$checker"
  python3 -m venv "$checker" && "$checker/bin/python" -m pip install --quiet onnx==1.23.2 onnxruntime==1.31.1 ||
    printf 'test: no ONNX checker (python3 -m venv or pip failed): its tests will be skipped\n' >&2
fi
if [ -x "$checker/bin/python" ]; then export ONNX_CHECKER_PYTHON="$PWD/$checker/bin/python"; fi

say "formatting"
cargo fmt --all --check
say "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
say "tests"
cargo test --workspace --locked
say "scripts/gpu_check.sh, on the CPU"
check="$(mktemp -d)"
trap 'rm -rf "$check"' EXIT
# gpu_check PIECE: on the shipped model's dimensions, with the programs that the tests have built.
gpu_check() {
  scripts/gpu_check.sh --piece "$1" --out "$check" --engine cpu --bin "${CARGO_TARGET_DIR:-target}/debug" --config models/geo-mini/model \
    --prompts 2 --group-size 2 --new-tokens 4 --image 56x56 --rounds 1 --steps 1
}
# has_line PATTERN FILE: or says which line is missing, and ends.
has_line() { grep -q "$1" "$2" || { printf "test: scripts/gpu_check.sh wrote no line '%s':\n" "$1" >&2; cat "$2" >&2; exit 1; }; }
scripts/gpu_check.sh --list > "$check/list"
has_line '11  on-policy-large' "$check/list"
gpu_check model
gpu_check parity
has_line '^| parity | largest difference of a logprob | .* | pass |$' "$check/report.md"
# What is not there is said so, in the report and by the exit status: no test programs lie where it looks for them.
if gpu_check tests; then
  printf 'test: scripts/gpu_check.sh ended with 0 although it had no GPU tests to run\n' >&2
  exit 1
fi
has_line '^| tests | GPU tests | not available: .* | not available |$' "$check/report.md"

say "the ring under loom"
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p shared --release --locked --lib loom_
