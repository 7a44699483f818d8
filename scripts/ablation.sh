#!/usr/bin/env bash
# Tables 1, 2, 3 and 5 of arXiv 2603.25077 and its study of beta, in miniature: every setting trains the shipped model
# as scripts/quickstart.sh does, from each seed, and is then measured greedily on the whole test split.
#
#   scripts/ablation.sh                    everything: 19 settings, 3 seeds each, about a minute a run
#   scripts/ablation.sh --only 3           one table: 1 reasoning only, 2 perception only, 3 algorithms, beta, 5 signals;
#                                          several with commas between
#   --seeds "0 1 2"   --steps 100          seeds, in this order: all settings with the first, then the next; steps of a run
#   --out runs/ablation                    where runs and report go
#   --jobs 1   --threads N                 runs side by side; threads of each program, all cores without it
#   --bin DIR                              programs built already: nothing is set up or built
#   --keep                                 keep weights and checkpoints of finished runs
#   --report                               run nothing, write the report of what is finished
#
# Start it again after Ctrl-C or a crash: finished runs are passed over, begun ones go on. The report is DIR/ablation.md,
# .json and .svg; a run's folder DIR/SETTING/seed-N has the commands that were run. Settings of several tables run once.
# Exit codes: 0 all finished, 1 a run failed or a precondition is missing, 2 wrong options, 130 stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
usage() { printf 'ablation: %s; see --help\n' "$*" >&2; exit 2; }

all_tables="1 2 3 beta 5"
only="$all_tables" seeds="0 1 2" steps='' out=runs/ablation jobs=1 threads='' bin='' keep='' report=''
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) sed -n '2,18s/^# \{0,1\}//p' scripts/ablation.sh; exit 0 ;;
    --keep) keep=yes; shift; continue ;;
    --report) report=yes; shift; continue ;;
    --only | --seeds | --steps | --out | --jobs | --threads | --bin) [ $# -ge 2 ] || usage "$1 wants a value" ;;
    *) usage "unknown option $1" ;;
  esac
  case "$1" in
    --only) only="${2//,/ }" ;;
    --seeds) seeds="${2//,/ }" ;;
    --steps) steps="$2" ;;
    --out) out="${2%/}" ;;
    --jobs) jobs="$2" ;;
    --threads) threads="$2" ;;
    --bin) bin="$2" ;;
  esac
  shift 2
done
[[ "$steps" =~ ^([1-9][0-9]{0,8})?$ ]] || usage "--steps wants a whole number from 1, got '$steps'"
[[ "$jobs" =~ ^[1-9][0-9]{0,2}$ ]] || usage "--jobs wants a whole number from 1, got '$jobs'"
[[ "$threads" =~ ^([1-9][0-9]{0,3})?$ ]] || usage "--threads wants a whole number from 1, got '$threads'"
[[ "$seeds" =~ ^\ *((0|[1-9][0-9]{0,17})(\ +|$))+$ ]] || usage "--seeds wants whole numbers, such as \"0 1 2\", got '$seeds'"
[ -n "$out" ] || usage "--out wants a folder"
[[ "$only" = *[^\ ]* ]] || usage "--only wants a table: ${all_tables// /, }"
for table in $only; do
  [[ " $all_tables " = *" $table "* ]] || usage "--only: no table '$table'; there are ${all_tables// /, }"
done

title() {
  case "$1" in
    1) echo "Table 1: DAPO on the reasoning tokens alone" ;;
    2) echo "Table 2: DAPO on the perception tokens alone" ;;
    3) echo "Table 3: algorithms without and with ToR" ;;
    beta) echo "ToR-DAPO by beta" ;;
    5) echo "Table 5: ToR-DAPO by perception signal" ;;
  esac
}

# settings TABLE: a line of `name|label|learner's options` for each of its rows.
settings() {
  local dapo="dapo|%s|--algo dapo --no-tor\n" tor_dapo="tor-dapo|%s|--algo dapo --beta 0.5 --rho 0.3\n" x
  case "$1" in
    1)
      for x in 0.2 0.4 0.6 0.8; do echo "reasoning-$x|top $x by entropy|--algo dapo --token-weights reasoning-only --rho $x"; done
      # shellcheck disable=SC2059
      printf "$dapo" "all tokens" ;;
    2)
      for x in 0.2 0.4 0.6 0.8; do echo "perception-$x|top $x by image|--algo dapo --token-weights perception-only --rho $x"; done
      # shellcheck disable=SC2059
      printf "$dapo" "all tokens" ;;
    3)
      echo "grpo|GRPO|--algo grpo --no-tor"
      echo "tor-grpo|ToR-GRPO|--algo grpo --beta 0.5 --rho 0.3"
      # shellcheck disable=SC2059
      printf "$dapo$tor_dapo" DAPO ToR-DAPO ;;
    beta)
      for x in 0.1 0.3 0.5 0.7 1.0 1.5; do
        # shellcheck disable=SC2059
        if [ "$x" = 0.5 ]; then printf "$tor_dapo" "beta 0.5"; else echo "beta-$x|beta $x|--algo dapo --beta $x --rho 0.3"; fi
      done ;;
    5)
      # shellcheck disable=SC2059
      printf "$tor_dapo" logp-diff
      for x in prob-diff entropy-diff; do echo "$x|$x|--algo dapo --beta 0.5 --rho 0.3 --perception-signal $x"; done ;;
  esac
}

accuracy() { sed -n 's/^  "accuracy": \([0-9.eE+-]*\),\{0,1\}$/\1/p' "$1"; }

write_report() {
  local table name label options json seed
  {
    printf 'steps\t%s\nbefore\t%s\n' "$steps" "$(accuracy "$out/eval-before.json")"
    for table in $all_tables; do
      printf 'table\t%s\t%s\n' "$table" "$(title "$table")"
      settings "$table" | while IFS='|' read -r name label options; do
        printf 'row\t%s\t%s\t%s\t%s\n' "$table" "$name" "$label" "$options"
        for json in "$out/$name"/seed-*/eval-after.json; do
          [ -e "$json" ] || continue
          seed="${json#"$out/$name/seed-"}"
          printf 'run\t%s\t%s\t%s\n' "$name" "${seed%%/*}" "$(accuracy "$json")"
        done
      done
    done
  } > "$out/ablation.tsv"
  awk -v out="$out/ablation" -f scripts/ablation.awk "$out/ablation.tsv"
  rm "$out/ablation.tsv"
}

# run_one NAME SEED OPTIONS: trains and measures one setting.
run_one() {
  local name="$1" seed="$2" resume=''
  local folder="$out/$name/seed-$seed"
  [ ! -e "$folder/run" ] || resume=--resume
  # shellcheck disable=SC2086  # words
  if ! train "$folder" "$out/config.toml" "$seed" --steps "$steps" $3 $resume > "$folder/learner.log" 2>&1; then
    [ "$failed" = stopped ] && return 130
    printf 'ablation: %s, seed %s: %s; see %s\n' "$name" "$seed" "$failed" "$folder/learner.log" >&2
    return 1
  fi
  evaluate "$folder" after --run-dir "$folder/run" > "$folder/eval.log" 2>&1 || {
    printf 'ablation: %s, seed %s: the evaluation failed: %s\n' "$name" "$seed" "$(tail -n 1 "$folder/eval.log")" >&2
    return 1
  }
  # The measures stay; weights of dozens of runs would fill a disk.
  [ -n "$keep" ] || find "$folder/run" -mindepth 1 -maxdepth 1 ! -name '*.toml' ! -name 'metrics*' ! -name tensorboard -exec rm -rf {} +
}

if [ -n "$bin" ]; then
  for program in rollout learner; do
    [ -x "$bin/$program" ] || die "--bin $bin: there is no program $program in it; build with 'cargo build --release', or leave --bin out"
  done
fi
[ -z "$report" ] || [ -e "$out/eval-before.json" ] || die "$out holds no runs; leave --report out, or give their folder with --out"
command -v flock >/dev/null || die "flock is missing: 'apt-get install util-linux'"
mkdir -p "$out"
exec 9> "$out/lock"
[ -n "$report" ] || flock -n 9 || die "$out: another ablation works in it, or its programs are still ending; wait, or choose another --out"
# The runs of one report are alike in their length.
if [ -e "$out/steps" ]; then
  before="$(cat "$out/steps")"
  [ "${steps:-$before}" = "$before" ] || die "$out holds runs of $before steps; leave --steps out, or choose another --out"
  steps="$before"
else
  steps="${steps:-100}"
  echo "$steps" > "$out/steps"
fi
if [ -n "$report" ]; then
  write_report
  cat "$out/ablation.md"
  exit 0
fi

# What is to be done: seeds outside, so that an early end leaves whole tables of fewer seeds.
todo=() seen=' ' num_finished=0
for seed in $seeds; do
  for table in $only; do
    while IFS='|' read -r name label options; do
      [[ "$seen" != *" $name/$seed "* ]] || continue
      seen+="$name/$seed "
      if [ -e "$out/$name/seed-$seed/eval-after.json" ]; then
        num_finished=$((num_finished + 1))
      else
        todo+=("$name|$seed|$options")
      fi
    done < <(settings "$table")
  done
done
say "${#todo[@]} runs of $steps steps to do, $num_finished finished already ($out)"

if [ ${#todo[@]} -gt 0 ] || [ ! -e "$out/eval-before.json" ]; then
  if [ -z "$bin" ]; then
    scripts/setup.sh
    say "building (release)"
    cargo build --release --locked -p rollout -p learner
    bin="${CARGO_TARGET_DIR:-target}/release"
  fi
  # Token weights come from each setting alone: quickstart's beta would be refused beside some of them.
  sed -e '/^beta = /d' -e '/^rho = /d' -e '/^algo = /d' -e '/^steps = /d' \
    ${threads:+-e "/^\[\(rollout\|learner\)\]/athreads = $threads"} scripts/quickstart.toml > "$out/config.toml"
  [ -e "$out/eval-before.json" ] || evaluate "$out" before --model "$model"
fi

declare -A running=() # pid -> todo's entry and its start
failures=() num_done=0 stopped='' started=$SECONDS next=0
stop_all() { stopped=yes; [ ${#running[@]} -eq 0 ] || kill "${!running[@]}" 2>/dev/null || true; }
trap stop_all INT TERM HUP
while :; do
  while [ -z "$stopped" ] && [ ${#running[@]} -lt "$jobs" ] && [ "$next" -lt ${#todo[@]} ]; do
    # Where nothing works nothing will.
    [ "$num_done" -gt 0 ] || [ ${#failures[@]} -eq 0 ] || break
    IFS='|' read -r name seed options <<< "${todo[next]}"
    mkdir -p "$out/$name/seed-$seed"
    # A group of its own: Ctrl-C reaches this script alone.
    set -m
    run_one "$name" "$seed" "$options" < /dev/null &
    set +m
    running[$!]="$name seed $seed|$SECONDS"
    next=$((next + 1))
  done
  [ ${#running[@]} -gt 0 ] || break
  ended=''
  wait -n -p ended "${!running[@]}" && status=0 || status=$?
  [ -n "${ended:-}" ] || continue # a signal came
  IFS='|' read -r what since <<< "${running[$ended]}"
  unset "running[$ended]"
  if [ "$status" -eq 0 ]; then
    num_done=$((num_done + 1))
    left=$(((SECONDS - started) * (${#todo[@]} - num_done - ${#failures[@]}) / num_done))
    say "$((num_done + ${#failures[@]}))/${#todo[@]} $what: $(awk -v a="$(accuracy "$out/${what/ seed /\/seed-}/eval-after.json")" 'BEGIN { printf "%.1f", 100 * a }') % in $((SECONDS - since)) s; about $(((left + 59) / 60)) min left"
    write_report
  elif [ -z "$stopped" ]; then
    failures+=("$what")
  fi
done
trap - INT TERM HUP

write_report
cat "$out/ablation.md"
say "report: $out/ablation.md, .json and .svg"
if [ -n "$stopped" ]; then
  say "stopped; the same command goes on"
  exit 130
fi
[ ${#failures[@]} -eq 0 ] || die "failed: $(printf '%s, ' "${failures[@]}")$((${#todo[@]} - num_done - ${#failures[@]})) not begun; the same command tries again"
