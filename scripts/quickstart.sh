#!/usr/bin/env bash
# The whole loop on this machine's CPU: set-up, release build, then a small Qwen2.5-VL learns to answer geometry
# questions about images with ToR-DAPO. Prints greedy accuracy on the test split before and after.
#
#   scripts/quickstart.sh                     seed 0
#   scripts/quickstart.sh --seed 3            another seed, another run folder
#   scripts/quickstart.sh --seed 3 --resume   goes on with that run after Ctrl-C or a crash
#
# What runs is what you would type: `rollout` and `learner` with scripts/quickstart.toml, and `rollout eval`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

seed=0 resume=
while [ $# -gt 0 ]; do
  case "$1" in
    --seed) [ $# -ge 2 ] || die "--seed wants a number"; seed="$2"; shift 2 ;;
    --resume) resume=--resume; shift ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' scripts/quickstart.sh; exit 0 ;;
    *) die "unknown option $1; see --help" ;;
  esac
done
[[ "$seed" =~ ^[0-9]{1,18}$ ]] || die "--seed wants a whole number, got '$seed'"
out="runs/quickstart-seed$seed" # the run folder, and what this script adds beside it
run_dir="$out/run"
go_on="scripts/quickstart.sh --seed $seed --resume"
if [ -n "$resume" ]; then
  [ -e "$out" ] || die "--resume: there is no $out to go on with; leave --resume out"
else
  [ ! -e "$out" ] || die "$out is there from an earlier run; \`$go_on\` goes on with it, another --seed starts another, or move it away"
fi

scripts/setup.sh
say "building (release)"
cargo build --release --locked
bin="${CARGO_TARGET_DIR:-target}/release"

mkdir -p "$out"
if [ ! -e "$out/eval-before.json" ]; then
  say "before: greedy accuracy on the whole test split"
  evaluate "$out" before --model "$model"
fi

say "training with ToR-DAPO (rollout's log: $out/rollout.log)"
started=$SECONDS
# shellcheck disable=SC2086  # none or one word
train "$out" scripts/quickstart.toml "$seed" $resume || die "$failed; \`$go_on\` goes on from the newest checkpoint"

say "after $((SECONDS - started)) s of training: greedy accuracy on the whole test split"
evaluate "$out" after --run-dir "$run_dir"
say "metrics: $run_dir/metrics.jsonl (TensorBoard events beside it); newest checkpoint: $run_dir/checkpoints"
