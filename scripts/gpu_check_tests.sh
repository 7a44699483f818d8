# shellcheck shell=bash disable=SC2034,SC2154  # sourced by scripts/gpu_check.sh, which sets what is only read here
# The tests that need a GPU, as a piece of scripts/gpu_check.sh.

# PACKAGE:TEST, the test programs that hold tests for a GPU, and how those are told from the others: by name; some are ignored
# elsewhere, others skip themselves. One after the other, since they share one GPU.
gpu_tests=(rollout:rows learner:precision learner:learner_parity)
gpu_tests_only=(--include-ignored on_gpu_ a_gpu_ --nocapture --test-threads=1)

piece_tests() {
  local of log program unlike_engine=() passed=0 failed=0 skipped=0 broken=''
  rm -f "$out"/logs/tests*
  [ "$engine" = trt ] || unlike_engine=(--skip tensorrt)
  for of in "${gpu_tests[@]}"; do
    log="tests-${of#*:}"
    if [ -z "$given_bin" ]; then
      run "$log" cargo test --release --locked -p "${of%:*}" --test "${of#*:}" -- "${gpu_tests_only[@]}" "${unlike_engine[@]}"
    else
      program="$(newest "$bin/tests/${of#*:}"-*)"
      if [ -z "$program" ]; then
        reason="there is no test program ${of#*:}-* in $bin/tests; see --help of scripts/gpu_check.sh" again=yes
        md "not available: $reason" ''
        broken="${broken:-$reason}"
        continue
      fi
      # What cargo would set.
      run "$log" env PARITY_FIXTURES="${PARITY_FIXTURES:-$PWD/tests/data/qwen2_5_vl}" ORT_DISABLE_TELEMETRY=1 \
        ORT_DYLIB_PATH="${ORT_DYLIB_PATH:-$PWD/.native/onnxruntime/lib/libonnxruntime.so}" "$program" "${gpu_tests_only[@]}" "${unlike_engine[@]}"
    fi
    log="$out/logs/$log"
    # A test program that did not get as far as its tests, or has none of these, would else pass unseen.
    if [ "$(counted passed "$log")$(counted failed "$log")" = 00 ]; then
      if [ "$status" -eq 0 ]; then
        reason="${of#*:} has no test for a GPU by its name (on_gpu_, a_gpu_)"
        md "not available: $reason" ''
      fi
      broken="${broken:-$reason}"
    elif [ "$status" -ne 0 ] && [ "$(counted failed "$log")" -eq 0 ]; then
      broken="${broken:-${of#*:} ended badly after its tests, with status $status}"
    fi
    passed=$((passed + $(counted passed "$log"))) failed=$((failed + $(counted failed "$log")))
    skipped=$((skipped + $(said_skipped "$log" | wc -l)))
    broken="${broken:-$(said_skipped "$log" | sed -n 1p)}"
  done
  tell_tests $((passed - skipped)) "$failed" "$skipped" "$broken"
}

# newest FILES...: the programs' newest, or nothing.
newest() {
  local file newest=''
  for file in "$@"; do
    if [ -f "$file" ] && [ -x "$file" ] && { [ -z "$newest" ] || [ "$file" -nt "$newest" ]; }; then newest="$file"; fi
  done
  echo "$newest"
}

# counted WORD LOG: how many tests passed, or failed.
counted() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i == word ";") sum += $(i - 1) } END { print sum + 0 }' "$2"; }

# said_skipped LOG: what tests say that found no GPU and ended; the test harness counts them as passed.
said_skipped() { plain "$1" | sed -n 's/.*\(skipped: .*\)/\1/p'; }

# tell_tests PASSED FAILED SKIPPED REASON: the figure of them; REASON: why not all of them ran.
tell_tests() {
  local counts="$1 passed, $2 failed, $3 skipped"
  if [ "$2" -gt 0 ] && [ "$on_gpu" = yes ]; then
    again=yes
    figure "GPU tests" "$counts" "all pass" FAIL
  elif [ "$on_gpu" != yes ] || [ -n "$4" ]; then
    again=yes reason="${4:-$on_gpu} ($counts)"
    missed "GPU tests" "all pass"
  else
    figure "GPU tests" "$1 passed" "all pass" pass
  fi
}
