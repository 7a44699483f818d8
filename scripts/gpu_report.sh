# shellcheck shell=bash disable=SC2154  # sourced by scripts/gpu_check.sh, which sets what is only read here
# The report of scripts/gpu_check.sh: a section per piece, and the figures of all of them in one table.
#
# In the folder `out`: NAME.md (a piece's section), NAME.rows (its figures), NAME.again (it is to be run again: something was
# not available, failed or took too long), NAME.seconds, logs/. report.md is made of these after every piece, so pieces may
# be run in any order, again, or after a crash.

section='' piece_started=0 # of the piece under way
stopped=''                 # after a signal

md() { printf '%s\n' "$@" >> "$section"; }

# code LANGUAGE: standard input, as a block.
code() {
  {
    printf '```%s\n' "$1"
    cat
    printf '```\n\n'
  } >> "$section"
}

# plain LOG: without colours and overwritten progress lines, cut to what a page bears.
plain() { sed -e 's/\x1b\[[0-9;?]*[A-Za-z]//g' -e 's/.*\r\(.\)/\1/' -e 's/\r$//' "$1" | cut -c 1-600; }

# message_of LOG: what a program that failed said about it: its error, or else its last words.
message_of() {
  local said
  # awk reads to the end: whoever stops early leaves the other side of the pipe with an error, which pipefail hands on.
  said="$(plain "$1" | awk '/^(error|thread .* panicked)/ && error == "" { error = $0 } /[^ \t]/ { last = $0 } END { print error == "" ? last : error }')"
  said="${said:-it said nothing}"
  echo "${said:0:400}"
}

# figure NAME VALUE TARGET VERDICT: a row of the table.
figure() { printf '| %s | %s | %s | %s | %s |\n' "$piece" "$1" "$2" "${3:--}" "$4" >> "$out/$piece.rows.part"; }

# judged NAME VALUE UNIT OPERATOR TARGET [WHETHER]: the figure with its verdict; WHETHER no: it has no target here.
judged() {
  local name="$1" value="$2" unit="$3" operator="$4" target="$5" verdict
  if [ -z "$value" ]; then
    figure "$name" "not in what the program wrote" "$operator $target${unit:+ $unit}" "not measured"
    again=yes
    return
  fi
  verdict="$(awk -v value="$value" -v target="$target" "BEGIN { print ((value + 0 == value && value $operator target) ? \"pass\" : \"FAIL\") }")"
  [ "${6:-yes}" = yes ] || verdict="not judged: $6"
  figure "$name" "$(short "$value")${unit:+ $unit}" "$operator $target${unit:+ $unit}" "$verdict"
}

# short NUMBER: four digits of it; anything else as it is.
short() { awk -v value="$1" 'BEGIN { if (value + 0 == value) printf "%.4g", value; else printf "%s", value }'; }

# calculate EXPRESSION NAME=VALUE...: by awk; nothing where a value is missing.
calculate() {
  local expression="$1" assignment options=()
  shift
  for assignment in "$@"; do
    [ -n "${assignment#*=}" ] || return 0
    options+=(-v "$assignment")
  done
  awk "${options[@]}" "BEGIN { printf \"%.6g\", $expression }"
}

# flatten FILE: a JSON file as lines a.b.0.c=value. No parser: enough for figures and configurations, whose strings are plain.
flatten() {
  sed -e 's/[{[]/&\n/g' -e 's/[]}]/\n&/g' -e 's/,/,\n/g' "$1" | awk '{
    line = $0; key = ""; path = ""
    sub(/^[ \t]+/, "", line); sub(/[ \t,]+$/, "", line)
    if (line == "") next
    if (line ~ /^[}\]]/) { depth--; next }
    if (match(line, /^"[^"]*":/)) { key = substr(line, 2, RLENGTH - 3); line = substr(line, RLENGTH + 1); sub(/^ +/, "", line) }
    else if (depth > 0) key = count[depth]++
    if (line == "{" || line == "[") { name[++depth] = key; count[depth] = 0; next }
    for (i = 2; i <= depth; i++) path = path name[i] "."
    print path key "=" line
  }'
}

# value FILE PATH: of such a file.
value() { flatten "$1" | awk -v start="$2=" 'index($0, start) == 1 && !seen++ { print substr($0, length(start) + 1) }'; }

# largest FILE KEY: the largest absolute value of a metric over the lines of metrics.jsonl.
largest() {
  # awk's match of a fixed string: the names hold slashes.
  awk -v key="\"$2\":" '{
    at = index($0, key)
    if (at == 0) next
    number = substr($0, at + length(key)); sub(/[,}].*/, "", number)
    if (number !~ /^-?[0-9.]+([eE][-+]?[0-9]+)?$/) { print "NaN"; most = ""; exit }
    number += 0
    if (number < 0) number = -number
    if (most == "" || number > most) most = number
  } END { if (most != "") print most }' "$1"
}

# attempt LOG COMMAND...: runs it in what is left of the piece's time. Leaves its exit status in `status`; where that is
# not 0 the reason is in `reason`.
attempt() {
  local log="$out/logs/$1" left=$((limit - (SECONDS - piece_started))) child started=$SECONDS
  shift
  status=0 reason=''
  # A group of its own: Ctrl-C reaches the script alone, which hands it on.
  set -m
  timeout --kill-after=20 "$((left > 1 ? left : 1))" "$@" < /dev/null > "$log" 2>&1 &
  child=$!
  set +m
  trap 'stopped=yes; kill "$child" 2>/dev/null || true' INT TERM HUP
  while wait "$child" && status=0 || status=$?; do
    kill -0 "$child" 2>/dev/null || break # a signal interrupts the waiting alone
  done
  trap - INT TERM HUP
  [ -z "$stopped" ] || die "stopped; the same command goes on, and repeats this piece"
  if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    reason="stopped after $((SECONDS - started)) s, the limit of a piece"
  elif [ "$status" -ne 0 ]; then
    reason="$(message_of "$log")"
  fi
  [ "$status" -eq 0 ] || again=yes
}

# run LOG COMMAND...: the same, and the command and the end of what it printed go into the section.
run() {
  printf '%q ' "${@:2}" | sed 's/ $/\n/' | code sh
  attempt "$@"
  plain "$out/logs/$1" | tail -n 40 | code text
  [ "$status" -eq 0 ] || md "not available: $reason" ''
}

# missed NAME TARGET: the row of a figure that could not be had; the reason is the program's own.
missed() { figure "$1" "not available: ${reason//|/\\|}" "$2" "not available"; }

# piece_begin and piece_end: around what `piece` does.
piece_begin() {
  section="$out/$piece.md.part" piece_started=$SECONDS again=''
  rm -f "$out/$piece.rows.part"
  : > "$section"
  : > "$out/$piece.rows.part"
}

piece_end() {
  echo "$((SECONDS - piece_started))" > "$out/$piece.seconds"
  if [ -n "$again" ]; then : > "$out/$piece.again"; else rm -f "$out/$piece.again"; fi
  mv "$out/$piece.rows.part" "$out/$piece.rows"
  mv "$section" "$out/$piece.md"
  write_report
}

# write_report: report.md, whole or not at all.
write_report() {
  local number=0
  {
    printf '# GPU check\n\n'
    cat "$out/settings"
    printf '\n| piece | figure | measured | target | verdict |\n|---|---|---|---|---|\n'
    for piece_name in "${pieces[@]}"; do cat "$out/$piece_name.rows" 2>/dev/null || true; done
    for piece_name in "${pieces[@]}"; do
      number=$((number + 1))
      printf '\n## %s. %s: %s\n\n' "$number" "$piece_name" "${captions[$piece_name]}"
      if [ -f "$out/$piece_name.md" ]; then
        cat "$out/$piece_name.md"
        printf '(%s s)\n' "$(cat "$out/$piece_name.seconds")"
      else
        printf 'not run yet\n'
      fi
    done
  } > "$out/report.md.part"
  mv "$out/report.md.part" "$out/report.md"
}
