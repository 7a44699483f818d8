#!/usr/bin/env bash
# The whole loop on this machine's CPU: set-up, release build, then a small Qwen2.5-VL learns to answer geometry
# questions about images with ToR-DAPO. Prints greedy accuracy on the test split before and after.
#
#   scripts/quickstart.sh                 seed 0
#   scripts/quickstart.sh --seed 3        another seed, another run folder
#
# What runs is what you would type: `rollout` and `learner` with scripts/quickstart.toml, and `rollout eval`.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

seed=0
while [ $# -gt 0 ]; do
  case "$1" in
    --seed) [ $# -ge 2 ] || die "--seed wants a number"; seed="$2"; shift 2 ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "unknown option $1; see --help" ;;
  esac
done
out="runs/quickstart-seed$seed" # the run folder, and what this script adds beside it
run_dir="$out/run"
[ ! -e "$out" ] || die "$out is there from an earlier run; move it away or choose another --seed"

scripts/setup.sh
say "building (release)"
cargo build --release --locked
bin="${CARGO_TARGET_DIR:-target}/release"
model=models/geo-mini/model
test_data=models/geo-mini/data/test.parquet

evaluate() { # evaluate WHAT OPTIONS...: one line with the greedy accuracy, also in $out/eval-WHAT.json
  local what="$1"; shift
  "$bin/rollout" eval --greedy --data "$test_data" --json "$out/eval-$what.json" "$@"
}

mkdir -p "$out"
say "before: greedy accuracy on the whole test split"
evaluate before --model "$model"

say "training with ToR-DAPO (rollout's log: $out/rollout.log)"
started=$SECONDS
"$bin/rollout" --config scripts/quickstart.toml --run-dir "$run_dir" --seed "$seed" 2> "$out/rollout.log" &
rollout=$!
"$bin/learner" --config scripts/quickstart.toml --run-dir "$run_dir" --seed "$seed" &
learner=$!
# Ctrl-C reaches both programs; each finishes what it has in hand, so only wait for them.
trap 'stopped=yes' INT
# Whichever fails takes the other along: alone it would wait for its peer for ever.
for _ in 1 2; do
  wait -n -p ended "$rollout" "$learner" && status=0 || status=$?
  [ -z "${stopped:-}" ] || { wait || true; die "stopped; \`$bin/learner --resume --config scripts/quickstart.toml --run-dir $run_dir\` goes on, with rollout beside it"; }
  if [ "$status" -ne 0 ]; then
    kill "$rollout" "$learner" 2>/dev/null || true
    wait || true
    if [ "$ended" = "$rollout" ]; then die "rollout stopped with an error: $(tail -n 3 "$out/rollout.log")"; fi
    die "the learner stopped with an error (above)"
  fi
done
trap - INT

say "after $((SECONDS - started)) s of training: greedy accuracy on the whole test split"
evaluate after --run-dir "$run_dir"
say "metrics: $run_dir/metrics.jsonl (TensorBoard events beside it); newest checkpoint: $run_dir/checkpoints"
