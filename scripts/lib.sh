# shellcheck shell=bash disable=SC2034,SC2154  # sourced: what is set here is used there, and the other way round
# One run of geo-mini, as scripts/quickstart.sh and scripts/ablation.sh both make it. Sourced from the repository's root;
# the script that does so sets `bin`, the folder of the programs.
#
# A run's folder OUT holds: commands (what was run, to paste into a shell at the root), run/ (the run folder of both programs),
# rollout.log, eval-WHAT.json.

model=models/geo-mini/model
test_data=models/geo-mini/data/test.parquet

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }

# record OUT COMMAND...: one line of OUT/commands.
record() {
  local file="$1/commands"
  shift
  { printf '%q ' "$@"; echo; } >> "$file"
}

# evaluate OUT WHAT OPTIONS...: prints greedy accuracy on the whole test split, also into OUT/eval-WHAT.json, which is
# there only when whole.
evaluate() {
  local out="$1" what="$2"
  local json="$out/eval-$what.json"
  shift 2
  record "$out" "$bin/rollout" eval --greedy --data "$test_data" --json "$json" "$@"
  "$bin/rollout" eval --greedy --data "$test_data" --json "$json.part" "$@" || return
  mv "$json.part" "$json"
}

# train OUT CONFIG SEED LEARNER_OPTIONS...: `rollout` and `learner` on OUT/run, up to the last step. Otherwise returns 1, with
# the reason in $failed; it is 'stopped' after a signal.
train() {
  local out="$1" config="$2" seed="$3"
  shift 3
  local run_dir="$out/run" rollout learner stopped='' timer='' ended status who left last
  local generate=("$bin/rollout" --config "$config" --run-dir "$run_dir" --seed "$seed")
  local learn=("$bin/learner" --config "$config" --run-dir "$run_dir" --seed "$seed" "$@")
  failed=''
  record "$out" "${generate[@]}"
  record "$out" "${learn[@]}"
  # Groups of their own: Ctrl-C reaches the script alone, which hands it on once. A second one makes them stop at once.
  set -m
  "${generate[@]}" 2>> "$out/rollout.log" &
  rollout=$!
  "${learn[@]}" &
  learner=$!
  set +m
  stop_both() { kill "$rollout" "$learner" 2>/dev/null || true; }
  trap 'stopped=yes; stop_both' INT TERM HUP

  # Whichever fails takes the other along: alone it would wait for its peer for ever. So would a rollout that comes when
  # all is over; it is told to stop after a while.
  local running=("$rollout" "$learner")
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
  if [ -n "$stopped" ] && [ -z "$failed" ]; then failed=stopped; fi
  # config.toml: what the run really used.
  printf -v last '%s/checkpoints/step-%08d' "$run_dir" "$(sed -n 's/^steps = //p' "$run_dir/config.toml" 2>/dev/null)"
  if [ -z "$failed" ] && [ ! -d "$last" ]; then failed="the learner stopped before its last step"; fi
  [ -z "$failed" ]
}
