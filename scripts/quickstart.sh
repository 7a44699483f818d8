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
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

seed=0 resume=
while [ $# -gt 0 ]; do
  case "$1" in
    --seed) [ $# -ge 2 ] || die "--seed wants a number"; seed="$2"; shift 2 ;;
    --resume) resume=--resume; shift ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
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
model=models/geo-mini/model
test_data=models/geo-mini/data/test.parquet

evaluate() { # evaluate WHAT OPTIONS...: one line with the greedy accuracy, also in $out/eval-WHAT.json
  local what="$1"; shift
  "$bin/rollout" eval --greedy --data "$test_data" --json "$out/eval-$what.json" "$@"
}

mkdir -p "$out"
if [ ! -e "$out/eval-before.json" ]; then
  say "before: greedy accuracy on the whole test split"
  evaluate before --model "$model"
fi

say "training with ToR-DAPO (rollout's log: $out/rollout.log)"
started=$SECONDS
# Groups of their own: Ctrl-C reaches this script alone, which hands it on once. A second one makes them stop at once.
set -m
"$bin/rollout" --config scripts/quickstart.toml --run-dir "$run_dir" --seed "$seed" 2>> "$out/rollout.log" &
rollout=$!
"$bin/learner" --config scripts/quickstart.toml --run-dir "$run_dir" --seed "$seed" $resume &
learner=$!
set +m
stopped=''
stop_both() { kill "$rollout" "$learner" 2>/dev/null || true; }
trap 'stopped=yes; stop_both' INT TERM HUP

# Whichever fails takes the other along: alone it would wait for its peer for ever. So would a rollout that comes when
# all is over; it is told to stop after a while.
running=("$rollout" "$learner") failed='' timer=''
while [ ${#running[@]} -gt 0 ]; do
  # shellcheck disable=SC2086  # none or one word
  wait -n -p ended "${running[@]}" $timer && status=0 || status=$?
  case "${ended:-}" in
    '') continue ;; # a signal came
    "$timer") timer=''; stop_both; continue ;;
    "$rollout") who="rollout (log: $out/rollout.log)"; left="$learner" ;;
    *) who="the learner"; left="$rollout" ;;
  esac
  if [ ${#running[@]} -eq 1 ]; then running=(); else running=("$left"); fi
  if [ "$status" -ne 0 ] && [ -z "$failed$stopped" ]; then
    failed="$who stopped with an error"
    [ "$status" -le 128 ] || failed="$who was killed by SIG$(kill -l "$status" || true)"
    [ "$ended" != "$rollout" ] || tail -n 1 "$out/rollout.log" >&2
    stop_both
  elif [ "$left" = "$rollout" ] && [ ${#running[@]} -gt 0 ]; then
    sleep 20 &
    timer=$!
  fi
done
[ -z "$timer" ] || kill "$timer" 2>/dev/null || true
trap - INT TERM HUP
printf -v last '%s/checkpoints/step-%08d' "$run_dir" "$(sed -n 's/^steps = //p' scripts/quickstart.toml)"
if [ -z "$failed$stopped" ] && [ ! -d "$last" ]; then failed="the learner stopped before its last step"; fi
[ -z "$failed$stopped" ] || die "${failed:-stopped}; \`$go_on\` goes on from the newest checkpoint"

say "after $((SECONDS - started)) s of training: greedy accuracy on the whole test split"
evaluate after --run-dir "$run_dir"
say "metrics: $run_dir/metrics.jsonl (TensorBoard events beside it); newest checkpoint: $run_dir/checkpoints"
