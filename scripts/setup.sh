#!/usr/bin/env bash
# Brings the native libraries that the two programs link or load: libtorch for `learner`, ONNX Runtime for `rollout`.
#
# Both come out of pinned, checksummed Python wheels (no Python runs later), into the user's cache folder;
# `.native` in the repository is a link to it, so that a fresh clone downloads nothing again.
# Safe to run any number of times: a finished part is kept, an interrupted one is done again.
#
# Your own libraries win over these: LIBTORCH (a libtorch 2.11 folder) and ORT_DYLIB_PATH (libonnxruntime.so 1.31).
# What you bring is checked and not fetched; keep the variables set for cargo and the programs.
set -euo pipefail
cd "$(dirname "$0")/.."

# name  version  file  sha256
wheels=(
  "onnxruntime 1.31.1 onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl 5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f"
  "torch 2.11.0 torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl 7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a"
  "nvidia-cuda-runtime 13.0.96 nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"
  "nvidia-cuda-cupti 13.0.85 nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl 4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8"
)

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# check_own: that what the user brought is what it has to be. A wrong path would show up minutes later, far from its cause.
check_own() {
  if [ -n "$own_libtorch" ]; then
    [[ "$LIBTORCH" = /* ]] || die "LIBTORCH='$LIBTORCH': give an absolute path, cargo builds from other folders"
    { [ -e "$LIBTORCH/lib/libtorch.so" ] || [ -e "$LIBTORCH/lib/libtorch.dylib" ]; } && [ -e "$LIBTORCH/include/ATen/ATen.h" ] ||
      die "LIBTORCH='$LIBTORCH' is not a libtorch folder: it needs lib/libtorch.so and include/ATen/ATen.h; mend it, or unset it to fetch libtorch"
    # Some builds say which they are.
    local version; version="$(cat "$LIBTORCH/build-version" 2>/dev/null || echo 2.11)"
    [[ "$version" = 2.11* ]] || say "warning: your libtorch is $version; the programs are written for 2.11"
    say "using your libtorch: $LIBTORCH"
  fi
  if [ -n "$own_onnxruntime" ]; then
    [[ "$ORT_DYLIB_PATH" = /* ]] || die "ORT_DYLIB_PATH='$ORT_DYLIB_PATH': give an absolute path, the programs run in other folders"
    [ -f "$ORT_DYLIB_PATH" ] ||
      die "ORT_DYLIB_PATH='$ORT_DYLIB_PATH' is not a file: give libonnxruntime.so itself, or unset it to fetch ONNX Runtime"
    grep -a -q OrtGetApiBase "$ORT_DYLIB_PATH" ||
      die "ORT_DYLIB_PATH='$ORT_DYLIB_PATH' is not ONNX Runtime's library: give libonnxruntime.so, or unset it to fetch one"
    # The version is in the name that its exported symbols carry.
    local version; version="$(grep -a -o -m 1 'VERS_1\.[0-9.]*' "$ORT_DYLIB_PATH" | head -n 1 || true)"
    [[ "${version:-VERS_1.31}" = VERS_1.31* ]] || say "warning: your ONNX Runtime is ${version#VERS_}; the programs are written for 1.31"
    say "using your ONNX Runtime: $ORT_DYLIB_PATH"
  fi
}

# check_tools: what is needed to build; with an argument also what is needed to fetch.
check_tools() {
  local missing=()
  command -v cargo >/dev/null || missing+=("cargo: install Rust 1.95 or newer with rustup")
  command -v c++ >/dev/null || missing+=("a C++ compiler: 'apt-get install g++' or your system's equivalent")
  if [ $# -gt 0 ]; then
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "only Linux on x86_64 has pinned libraries; elsewhere set LIBTORCH and ORT_DYLIB_PATH to your own (libtorch 2.11, ONNX Runtime 1.31)"
    command -v python3 >/dev/null || missing+=("python3 (only to unpack wheels): 'apt-get install python3'")
    python3 -m pip --version >/dev/null 2>&1 || missing+=("pip (only to fetch wheels): 'apt-get install python3-pip'")
  fi
  if [ ${#missing[@]} -gt 0 ]; then
    printf 'setup: missing %s\n' "${missing[@]}" >&2
    exit 1
  fi
}

# fetch NAME VERSION FILE SHA256: the wheel, checked, in $cache/wheels.
fetch() {
  local file="$cache/wheels/$3"
  if [ ! -f "$file" ] || ! echo "$4  $file" | sha256sum --check --status; then
    say "fetching $1 $2"
    rm -f "$file"
    # One interpreter tag for everybody: only the libraries inside the wheel are used, never its Python part.
    python3 -m pip download --no-deps --only-binary=:all: --implementation cp --python-version 3.11 \
      --abi cp311 --abi abi3 --abi none --platform any \
      --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux2014_x86_64 \
      --dest "$cache/wheels" --retries 5 "$1==$2" || die "could not fetch $1 $2: check the network or pip's index settings, then run this script again"
    echo "$4  $file" | sha256sum --check --status || die "$3 has another checksum than the pinned one; delete $file and run again"
  fi
}

# unpack WHEEL_FILE DEST PREFIX...: the members that start with one of the prefixes.
unpack() {
  python3 - "$@" <<'PY'
import sys, zipfile
wheel, dest, *prefixes = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    names = [n for n in z.namelist() if n.startswith(tuple(prefixes))]
    if not names:
        sys.exit(f"setup: nothing under {prefixes} in {wheel}")
    for name in names:
        z.extract(name, dest)
PY
}

install_onnxruntime() {
  local stage="$1" out="$2"
  unpack "$cache/wheels/onnxruntime-"*.whl "$stage" onnxruntime/capi/libonnxruntime
  mkdir -p "$out/lib"
  mv "$stage"/onnxruntime/capi/libonnxruntime.so.* "$out/lib/libonnxruntime.so"
}

install_libtorch() {
  local stage="$1" out="$2"
  unpack "$cache/wheels/torch-"*.whl "$stage" torch/include/ torch/lib/libtorch_cpu.so torch/lib/libc10.so torch/lib/libgomp
  unpack "$cache/wheels/nvidia_cuda_runtime-"*.whl "$stage" nvidia/cu13/lib/libcudart.so
  unpack "$cache/wheels/nvidia_cuda_cupti-"*.whl "$stage" nvidia/cu13/lib/libcupti.so
  mkdir -p "$out"
  mv "$stage/torch/include" "$stage/torch/lib" "$out/"
  mv "$stage"/nvidia/cu13/lib/libc*.so.* "$out/lib/"
  # The wheel is a CUDA build. Its CPU half runs alone; the linker is told that libtorch *is* that half.
  echo 'INPUT(-ltorch_cpu)' > "$out/lib/libtorch.so"
}

# part NAME INSTALLER: runs INSTALLER into a staging folder, then moves the result into place in one rename.
part() {
  local out="$cache/$1"
  if [ -d "$out" ]; then return; fi
  say "unpacking $1"
  local stage
  stage="$(mktemp -d "$cache/stage.XXXXXX")"
  "$2" "$stage/in" "$stage/out"
  mv "$stage/out" "$out"
  rm -rf "$stage"
}

own_libtorch="${LIBTORCH:-}" own_onnxruntime="${ORT_DYLIB_PATH:-}"
check_own
cache="${TOR_NATIVE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tor/native-ort1.31.1-torch2.11.0}"
[[ "$cache" = /* ]] || die "TOR_NATIVE_CACHE='$cache': give an absolute path"
mkdir -p "$cache"
exec 9> "$cache/lock"
flock 9 # two set-ups at once share one cache
rm -rf "$cache"/stage.*
wanted=()
[ -n "$own_onnxruntime" ] || [ -d "$cache/onnxruntime" ] || wanted+=(onnxruntime)
[ -n "$own_libtorch" ] || [ -d "$cache/libtorch" ] || wanted+=(libtorch)
check_tools "${wanted[@]}"
if [ ${#wanted[@]} -gt 0 ]; then
  mkdir -p "$cache/wheels"
  for wheel in "${wheels[@]}"; do
    case "${wheel%% *}" in onnxruntime) part=onnxruntime ;; *) part=libtorch ;; esac
    [[ " ${wanted[*]} " = *" $part "* ]] || continue
    # shellcheck disable=SC2086  # four words on purpose
    fetch $wheel
  done
  for part in "${wanted[@]}"; do part "$part" "install_$part"; done
fi
rm -rf "$cache/wheels" # unpacked: half a gigabyte that nobody needs again
if [ -e .native ] && [ ! -L .native ]; then die "'.native' is not a link; move it away and run again"; fi
ln -sfn "$cache" .native
[ -n "$own_libtorch" ] && [ -n "$own_onnxruntime" ] || say "native libraries ready in $cache"
