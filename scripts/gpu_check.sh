#!/usr/bin/env bash
# Proves and measures on a GPU what can only be proved and measured there, and writes one report. See --help.
#
# Every figure comes out of a run of the real programs; what they can't do here stands in the report in their own words.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/gpu_report.sh
. scripts/gpu_check_tests.sh

usage() {
  cat <<'TEXT'
Runs the GPU parity tests and both benches on a random model of Qwen2.5-VL-3B's size (no download), and writes one report
with every command and every figure beside its target.

  scripts/gpu_check.sh                 what is not done yet of all pieces; called again it goes on
  scripts/gpu_check.sh --list          the pieces
  scripts/gpu_check.sh --piece N       one piece, by number or name, again if it was done; at most ten minutes (see --limit)
  scripts/gpu_check.sh --engine cpu --config tests/data/bench    proves the script itself, without a GPU

  --bin DIR        use these programs (rollout, learner, models) and do not build. Tests are the newest programs rows-*, precision-*
                   and learner_parity-* in DIR/tests, built in a checkout at this same path; to fill it: cargo test --release --no-run \
                   -p rollout -p learner --test rows --test precision --test learner_parity 2>&1 | sed -n 's/.*(\(.*\))$/\1/p' | xargs cp -t DIR/tests
  --out DIR        where the report is, and the model                         [default: runs/gpu-check]
  --engine E       trt, cuda or cpu                                           [default: trt]
  --trt-attention F  native or decomposed, as of rollout                      [default: its own]
  --device D       the learner's: cuda:0, cpu                                 [default: cuda:0; with --engine cpu: cpu]
  --dtype T        the learner's: bf16, f32                                   [default: bf16; on the CPU its own]
  --config C       config.json or its folder, of the model to measure         [default: the dimensions of Qwen2.5-VL-3B]
  --prompts P --group-size G --new-tokens N --image WxH --rounds R            [default: 8, 8, 256, 448x448, 3]
                   a round of both benches; the rows of the engine are P times G
  --steps N        training steps of the on-policy pieces                     [default: 3]
  --limit S        seconds of a piece                                         [default: 570]
  --bandwidth X    of the GPU's memory in GB/s, --peak X of its bf16 products in TFLOP/s
                   [default: the maker's figures for GH200, H200, H100, A100, L40S and RTX 4090]

Needs scripts/setup.sh --tensorrt (or --cuda) first. Exits with 1 where a figure misses its target or is not available.
TEXT
}

pieces=(build machine model tests parity on-policy generation steps update update-checkpointed on-policy-large)
declare -A captions=(
  [build]="the programs"
  [machine]="what is installed"
  [model]="random weights of the size that is measured"
  [tests]="the tests that need a GPU"
  [parity]="the engine's logprobs against the learner's in f32, on the shipped model"
  [on-policy]="the same with the learner as it trains"
  [generation]="speed of generation, the blank pass, new weights"
  [steps]="a decoding step by rows and context, against the memory's bandwidth"
  [update]="memory plan and speed of an update"
  [update-checkpointed]="the same with --checkpoint-layers"
  [on-policy-large]="the engine's logprobs against the learner's, at the size that is measured"
)
piece_build() {
  local program
  if [ -n "$given_bin" ]; then
    for program in rollout learner models; do
      run "$program.version" "$bin/$program" --version
      [ "$status" -eq 0 ] || missed "$program" "it runs"
    done
    return
  fi
  run build cargo build --release --locked
  [ "$status" -eq 0 ] || { missed "release build" "it builds"; return; }
  run build-tests cargo test --release --locked --no-run -p rollout -p learner "${gpu_tests[@]/#*:/--test=}"
  [ "$status" -eq 0 ] || missed "GPU tests" "they build"
}

piece_machine() {
  run nvidia-smi nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv
  [ "$status" -eq 0 ] || [ "$on_gpu" != yes ] || missed "GPU" "there is one"
  figure "GPU" "$(gpu_name)" "" "-"
  run system uname -srm
  run commit git log -1 --format=%H
  [ "$on_gpu" = yes ] || again='' # nothing of this is needed there
  run rollout-doctor "$bin/rollout" doctor --engine "$engine"
  said "engine $engine" "$(plain "$out/logs/rollout-doctor" | sed -n "s/^engine $engine  *//p")" "ok*" ok
  run learner-doctor "$bin/learner" doctor
  [ "$device" = cpu ] || said "learner on a GPU" "$(plain "$out/logs/learner-doctor" | sed -n 's/^cuda  *//p')" "[1-9]*" "a number of GPUs"
}

# said NAME WORDS PATTERN TARGET: a figure in a program's own words; others than PATTERN mean that it is not available.
said() {
  local verdict=pass
  # shellcheck disable=SC2053  # a pattern
  [[ "$2" = $3 ]] || verdict="not available" again=yes
  figure "$1" "${2:-nothing}" "$4" "$verdict"
}

gpu_name() { { nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo none; } | sed -n '1 s/, / with driver /; 1 p'; }

piece_model() {
  rm -rf "$big_model.part"
  if [ -d "$big_model" ]; then
    md "kept from before: $big_model" ''
    return
  fi
  if [ -z "$config" ]; then write_3b_config "$out/config"; fi
  run random "$bin/models" random --config "${config:-$out/config}" --dtype bf16 "$big_model.part"
  [ "$status" -eq 0 ] || { missed "random model" "it is written"; return; }
  mv "$big_model.part" "$big_model"
}

# need_model FIGURE TARGET: whether there is a model to measure.
need_model() {
  [ ! -d "$big_model" ] || return 0
  reason="there is no $big_model; piece 'model' makes it" again=yes
  md "not available: $reason" ''
  missed "$1" "$2"
  return 1
}

# on_policy MODEL DTYPE LR STEPS LINES...: a short run of both programs; its metrics.jsonl is in $metrics.
on_policy() {
  local folder="$out/$piece-run" of="$1" dtype="$2" lr="$3" steps="$4"
  shift 4
  metrics="$folder/run/metrics.jsonl"
  rm -rf "$folder"
  mkdir -p "$folder" "$out/tensorrt"
  mkdir -m 700 "$folder/run"
  # TensorRT takes minutes to build an engine: those of a run that was repeated or stopped are good for the next one. The
  # programs take a folder that isn't empty for a run's by this mark (shared/src/run_dir.rs).
  ln -s "$(realpath "$out/tensorrt")" "$folder/run/tensorrt"
  : > "$folder/run/.tor-run"
  {
    # Every token counts, and no group is left out for being all right or all wrong.
    printf '[run]\nmodel = "%s"\n\n[rollout]\nengine = "%s"\ndata = "models/geo-mini/data/train.parquet"\n' "$of" "$engine"
    printf 'group_size = 8\nrows = 64\nmax_prompt_tokens = 512\nmax_response_tokens = 64\n'
    [ -z "$trt_attention" ] || printf 'trt_attention = "%s"\n' "$trt_attention"
    [ "$of" = "$model" ] || printf 'verifier_command = "%s"\n' "scripts/gpu_check_verifier.sh"
    printf '\n[learner]\nalgo = "dapo"\ngroup_filter = "off"\nno_tor = true\nbatch_prompts = 8\nsave_every = 0\n'
    printf 'steps = %s\nlr = %s\ndevice = "%s"\n' "$steps" "$lr" "$device"
    [ -z "$dtype" ] || printf 'dtype = "%s"\n' "$dtype"
    [ $# -eq 0 ] || printf '%s\n' "$@"
  } > "$folder/config.toml"
  md "$folder/config.toml:" ''
  code toml < "$folder/config.toml"
  # shellcheck disable=SC2016  # for the shell that is started
  attempt "$piece" bash -c 'set -euo pipefail; bin="$1"; . scripts/lib.sh; train "$2" "$2/config.toml" 0 || die "$failed"' gpu_check "$bin" "$folder"
  code sh < <(cat "$folder/commands")
  plain "$out/logs/$piece" | tail -n 30 | code text
  [ "$status" -eq 0 ] || md "not available: $reason" ''
}

# differences KL_TARGET LARGEST_TARGET: figures of such a run, the worst of its steps; an empty target is not asked for.
differences() {
  if [ "$status" -ne 0 ]; then
    missed "rollout against learner" "${1:+mismatch_kl < $1}${2:+largest difference < $2, mean < 1e-3}"
    return
  fi
  if [ -n "$1" ]; then judged "mismatch_kl" "$(largest "$metrics" train/mismatch_kl)" "nats per token" "<" "$1"; fi
  if [ -n "$2" ]; then judged "largest difference of a logprob" "$(largest "$metrics" train/logprob_diff_max)" "" "<" "$2"; fi
  # Before any update of a step both programs hold the same weights: the mean of rollout's minus the learner's logprob.
  judged "mean difference of logprobs" "$(largest "$metrics" actor/ppo_kl)" "" "<" "1e-3"
}

piece_parity() { on_policy "$model" "${dtype:+f32}" 1e-4 "$num_steps"; differences "" "3e-2"; }
piece_on-policy() { on_policy "$model" "$dtype" 1e-4 "$num_steps"; differences "1e-3" ""; }

piece_on-policy-large() {
  need_model "mismatch_kl" "< 1e-3" || return 0
  # LoRA: what matters is the forward pass, and both programs may have to share one GPU.
  on_policy "$big_model" "$dtype" 1e-5 1 "lora_rank = 8" "checkpoint_layers = true"
  differences "1e-3" ""
  rm -rf "$out/$piece-run/run/checkpoints" "$out/$piece-run/run/weights" # gigabytes
}

# rollout_bench JSON OPTIONS...: on the model that is measured.
rollout_bench() {
  local json="$out/$1"
  shift
  rm -f "$json"
  # The CPU is what it measures anyway: a build of it that has no --engine does for that, and for others says so itself.
  local on=(--engine "$engine" ${trt_attention:+--trt-attention "$trt_attention"})
  [ "$engine" != cpu ] || on=()
  run "$piece" "$bin/rollout" bench --model "$big_model" "${on[@]}" --prompts "$prompts" --group-size "$group_size" \
    --rows $((prompts * group_size)) --new-tokens "$new_tokens" --image "$image" --rounds "$rounds" --json "$json" "$@"
}

piece_generation() {
  local json="$out/generation.json"
  need_model "blank pass" "<= 15 %" || return 0
  rollout_bench generation.json --swap
  if [ "$status" -ne 0 ]; then missed "generation" "blank pass <= 15 %, new weights < 0.3 s"; return; fi
  figure "generation" "$(short "$(value "$json" generation.tokens_per_second)") tokens/s" "" "-"
  figure "whole records" "$(short "$(value "$json" records.tokens_per_second)") tokens/s" "" "-"
  judged "blank pass, by what it adds to generation" "$(calculate '100 * (ratio - 1)' "ratio=$(value "$json" records_by_generation)")" % "<=" 15 "$of_engine"
  judged "new weights in the engine" "$(value "$json" swap.idle_s)" s "<" 0.3 "$of_engine"
  figure "new weights while it decodes" "$(short "$(value "$json" swap.busy_s)") s" "" "-"
}

piece_steps() {
  local json="$out/steps.json" rows=$((prompts * group_size)) bytes=2 point
  need_model "decode" ">= 50 % of the bandwidth" || return 0
  rollout_bench steps.json --curve
  if [ "$status" -ne 0 ]; then missed "decode at $rows rows" ">= 50 % of the bandwidth"; return; fi
  [ "$engine" != cpu ] || bytes=4
  for point in $(flatten "$json" | sed -n "s/^curve\.\([0-9]*\)\.rows=$rows\$/\1/p"); do decode_point "$json" "$point" "$rows" "$bytes"; done
  [ -s "$out/$piece.rows.part" ] || judged "decode at $rows rows" "" "% of the bandwidth" ">=" 50
}

# text_value KEY: of the language model in the configuration, whose keys may lie in a table of their own.
text_value() { flatten "$big_model/config.json" | sed -n -E "s/^(text_config\.)?$1=//p" | tail -n 1; }

# decode_point JSON POINT ROWS BYTES_PER_NUMBER: a step has to read all weights and each row's keys and values once.
decode_point() {
  # Tokens that a row has said halfway: one step comes before the 12 that are measured (rollout/src/bench/curve.rs).
  local response=7
  local context step_ms layers kv_heads width heads gib share
  context="$(value "$1" "curve.$2.context")" step_ms="$(value "$1" "curve.$2.step_ms")"
  layers="$(text_value num_hidden_layers)" kv_heads="$(text_value num_key_value_heads)"
  width="$(text_value hidden_size)" heads="$(text_value num_attention_heads)"
  gib="$(calculate "bytes * (weights + rows * (context + response) * 2 * layers * kv_heads * width / heads) / 2 ^ 30" "bytes=$4" "rows=$3" \
    "weights=$(value "$1" text_parameters)" "context=$context" "response=$response" "layers=$layers" "kv_heads=$kv_heads" "width=$width" "heads=$heads")"
  figure "step of $3 rows after $context tokens" "$(short "$step_ms") ms, which reads $(short "$gib") GiB" "" "-"
  if [ -z "$bandwidth" ]; then
    figure "decode at $3 rows after $context tokens" "bandwidth unknown: give --bandwidth" ">= 50 % of it" "not judged"
    return
  fi
  share="$(calculate '100 * gib * 2 ^ 30 / (ms / 1000) / (bandwidth * 1e9)' "gib=$gib" "ms=$step_ms" "bandwidth=$bandwidth")"
  judged "decode at $3 rows after $context tokens" "$share" "% of $bandwidth GB/s" ">=" 50 "$of_engine"
}

# update_bench OPTIONS...: the learner's.
update_bench() {
  local json="$out/$piece.json" gflops
  rm -f "$json"
  run "$piece" "$bin/learner" bench --model "$big_model" --device "$device" ${dtype:+--dtype "$dtype"} --prompts "$prompts" \
    --group-size "$group_size" --new-tokens "$new_tokens" --image "$image" --rounds "$rounds" --json "$json" "$@"
  if [ "$status" -ne 0 ]; then missed "update" "model-FLOP utilisation >= 35 %"; return; fi
  gflops="$(value "$json" gflops)"
  figure "update" "$(short "$(value "$json" update_s)") s, $(calculate 'x / 1000' "x=$gflops") TFLOP/s" "" "-"
  if [ -z "$peak" ]; then
    figure "model-FLOP utilisation" "peak unknown: give --peak" ">= 35 %" "not judged"
  else
    judged "model-FLOP utilisation" "$(calculate '100 * x / 1000 / peak' "x=$gflops" "peak=$peak")" "% of $peak TFLOP/s" ">=" 35 "$of_device"
  fi
}

# update_plan OPTIONS...: what the learner would take of the device's memory, before it takes it.
update_plan() {
  local log="$out/logs/$piece-plan" needed free
  # A run folder that is not there: else the settings of runs/default would count.
  run "$piece-plan" "$bin/learner" plan --run-dir "$out/no-run" --model "$big_model" --device "$device" ${dtype:+--dtype "$dtype"} "$@"
  if [ "$status" -ne 0 ]; then missed "memory plan" "it is printed"; return; fi
  needed="$(sed -n 's/^ *\(.*[^ ]\)  in all$/\1/p' "$log")" free="$(sed -n 's/^ *\(.*[^ ]\)  free on .*/\1/p' "$log")"
  figure "memory plan of a training step at the default size" "${needed:-not in what it wrote}, ${free:-unknown} free" "" "-"
}

piece_update() {
  need_model "update" "model-FLOP utilisation >= 35 %" || return 0
  update_plan
  update_bench
}

piece_update-checkpointed() {
  need_model "update" "model-FLOP utilisation >= 35 %" || return 0
  update_plan --checkpoint-layers
  update_bench --checkpoint-layers
}

# write_3b_config FOLDER: the dimensions of Qwen2.5-VL-3B, with the tokenizer of tests/data/bench and so its token numbers.
write_3b_config() {
  mkdir -p "$1"
  cp tests/data/bench/*.json "$1/"
  cat > "$1/config.json" <<'JSON'
{
 "architectures": ["Qwen2_5_VLForConditionalGeneration"],
 "model_type": "qwen2_5_vl", "torch_dtype": "bfloat16", "tie_word_embeddings": true, "hidden_act": "silu",
 "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "max_window_layers": 36,
 "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 128000,
 "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
 "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": true, "use_sliding_window": false, "sliding_window": 32768,
 "bos_token_id": 16370, "eos_token_id": 16372, "vision_start_token_id": 16379, "vision_end_token_id": 16380,
 "vision_token_id": 16381, "image_token_id": 16382, "video_token_id": 16383,
 "vision_config": {
  "model_type": "qwen2_5_vl", "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
  "in_chans": 3, "out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
  "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "temporal_patch_size": 2
 }
}
JSON
}

# known_limits: the maker's figures for this GPU, dense, where none were given.
known_limits() {
  local known=''
  case "$(gpu_name)" in
    *GH200*144G*) known="4900 989" ;;
    *GH200*) known="4000 989" ;;
    *H200*NVL*) known="4800 836" ;;
    *H200*) known="4800 989" ;;
    *H100*PCIe*) known="2000 756" ;;
    *H100*NVL*) known="3900 835" ;;
    *H100*) known="3350 989" ;;
    *A100*80GB\ PCIe*) known="1935 312" ;;
    *A100*80GB*) known="2039 312" ;;
    *A100*) known="1555 312" ;;
    *L40S*) known="864 362" ;;
    *RTX\ 4090\ [DL]*) ;; # 4090 D, 4090 Laptop GPU
    *RTX\ 4090*) known="1008 165" ;;
  esac
  bandwidth="${bandwidth:-${known% *}}" peak="${peak:-${known#* }}"
}

list() {
  local number=0 name state
  for name in "${pieces[@]}"; do
    number=$((number + 1)) state=''
    if [ -e "$out/$name.again" ]; then state=' (to be run again)'; elif [ -e "$out/$name.md" ]; then state=' (done)'; fi
    printf '%2d  %-20s %s%s\n' "$number" "$name" "${captions[$name]}" "$state"
  done
}

# chosen NUMBER_OR_NAME: the piece's name.
chosen() {
  local name
  if [[ "$1" =~ ^[0-9]+$ ]] && [ "$1" -ge 1 ] && [ "$1" -le ${#pieces[@]} ]; then echo "${pieces[$1 - 1]}"; return; fi
  for name in "${pieces[@]}"; do [ "$name" != "$1" ] || { echo "$name"; return; }; done
  die "--piece: there is no piece '$1'; --list shows them"
}

given_bin='' out=runs/gpu-check engine=trt trt_attention='' device='' dtype='' config='' only='' listed='' bandwidth='' peak=''
prompts=8 group_size=8 new_tokens=256 image=448x448 rounds=3 num_steps=3
limit=570 # and 20 more for what does not end by itself
while [ $# -gt 0 ]; do
  case "$1" in
    --list) listed=yes; shift; continue ;;
    -h | --help) usage; exit ;;
    --bin | --out | --engine | --trt-attention | --device | --dtype | --config | --piece | --prompts | --group-size | --new-tokens | --image | --rounds | --steps | --limit | --bandwidth | --peak)
      [ $# -ge 2 ] || die "$1 wants a value; see --help" ;;
    *) die "unknown option $1; see --help" ;;
  esac
  case "$1" in
    --bin) given_bin="$2" ;; --out) out="$2" ;; --engine) engine="$2" ;; --trt-attention) trt_attention="$2" ;; --device) device="$2" ;; --dtype) dtype="$2" ;;
    --config) config="$2" ;; --piece) only="$(chosen "$2")" ;; --prompts) prompts="$2" ;; --group-size) group_size="$2" ;;
    --new-tokens) new_tokens="$2" ;; --image) image="$2" ;; --rounds) rounds="$2" ;; --steps) num_steps="$2" ;;
    --limit) limit="$2" ;; --bandwidth) bandwidth="$2" ;; --peak) peak="$2" ;;
  esac
  shift 2
done
for number in "$prompts" "$group_size" "$new_tokens" "$rounds" "$num_steps" "$limit"; do
  [[ "$number" =~ ^[1-9][0-9]{0,8}$ ]] || die "'$number' is not a whole number above 0; see --help"
done
for number in "$bandwidth" "$peak"; do
  [[ "$number" =~ ^[0-9.]*$ ]] || die "--bandwidth and --peak want numbers, got '$number'"
done
case "$engine" in trt | cuda | cpu) ;; *) die "--engine wants trt, cuda or cpu, got '$engine'" ;; esac
case "$trt_attention" in '' | native | decomposed) ;; *) die "--trt-attention wants native or decomposed, got '$trt_attention'" ;; esac
if [ -z "$device" ]; then if [ "$engine" = cpu ]; then device=cpu; else device=cuda:0; fi; fi
if [ -z "$dtype" ] && [ "$device" != cpu ]; then dtype=bf16; fi
if [ -n "$listed" ]; then list; exit; fi

bin="${given_bin:-${CARGO_TARGET_DIR:-target}/release}" big_model="$out/model"
if [ -n "$given_bin" ] && ! [ -x "$bin/rollout" ]; then die "--bin $bin: there is no program rollout"; fi
# Speed has targets for GPUs alone.
of_engine=yes of_device=yes on_gpu=yes
[ "$engine" != cpu ] || of_engine="this is no GPU"
[ "$device" != cpu ] || of_device="this is no GPU"
[ "$of_engine$of_device" != "$of_engine$of_engine" ] || on_gpu="$of_engine"
[ -n "$bandwidth" ] && [ -n "$peak" ] || known_limits
mkdir -p "$out/logs"
exec 9> "$out/lock"
flock -n 9 || die "another one works in $out"
# Figures of different settings don't belong on one page.
settings="engine $engine${trt_attention:+ with $trt_attention attention}; learner on $device${dtype:+ in $dtype}; model ${config:-of Qwen2.5-VL-3B\'s dimensions}, random weights; \
a round: $prompts prompts, $group_size responses of $new_tokens tokens each, images $image; $rounds rounds"
if [ -e "$out/settings" ] && [ "$(cat "$out/settings")" != "$settings" ]; then
  die "$out holds a report of other settings ($(cat "$out/settings")); give another --out, or remove it"
fi
echo "$settings" > "$out/settings"

for piece in "${pieces[@]}"; do
  if [ -n "$only" ]; then
    [ "$piece" = "$only" ] || continue
  elif [ -e "$out/$piece.md" ] && [ ! -e "$out/$piece.again" ]; then
    continue
  fi
  say "$piece: ${captions[$piece]}"
  piece_begin
  "piece_$piece"
  cat "$out/$piece.rows.part"
  piece_end
done
say "report: $out/report.md"
! grep -q -E '\| (FAIL|not available|not measured) \|$' "$out"/*.rows
