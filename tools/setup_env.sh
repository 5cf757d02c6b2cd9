#!/usr/bin/env bash
# Makes sure that there is a Python with everything mmsoc needs, and prints its path (the only line on standard output).
#
#   PYTHON="$(bash tools/setup_env.sh)"
#
# The active `python` is used if it has everything (tools/check_env.py).  Otherwise `.venv` in the repository is made, or finished if
# an earlier run was interrupted.  A second run needs no network and takes seconds.
#
# Environment:
#   MMSOC_PYTHON  the Python that makes .venv (default: the first of python3, python3.12 ... that fits)
#   MMSOC_TORCH   what to install as torch (default: torch==2.13.0), e.g. "torch==2.11.0"
#   MMSOC_STACK   openmmlab, or onedl: OneDL's maintained forks of mmengine, mmcv and mmdet (default: what .venv has, else openmmlab)
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
LOG="$VENV/setup.log"
STAMP="$VENV/.mmsoc-ready"
TORCH="${MMSOC_TORCH:-torch==2.13.0}"
NEEDED_GIB=6

say() { printf '[setup] %s\n' "$*" >&2; }
die() { printf '[setup] ERROR: %s\n' "$1" >&2; shift; for line in "$@"; do printf '[setup]   %s\n' "$line" >&2; done; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

# `check_env.py` of a Python: succeeds if that has everything, with its notes (what works but is slow) in NOTES.
has_everything() { NOTES="$("$1" "$ROOT/tools/check_env.py" ${MMSOC_STACK:+--stack "$MMSOC_STACK"} 2>&1 >/dev/null)"; }
say_notes() { local line; while IFS= read -r line; do case "$line" in note:*) say "WARNING: ${line#note: }" ;; esac; done <<<"$NOTES"; }

# Hash of what the environment is made from: a change of requirements/ makes the next run look again.
fingerprint() { cat "$ROOT"/requirements/*.txt <(echo "$TORCH") | cksum | cut -d' ' -f1; }

has_distribution() { compgen -G "$VENV/lib/python*/site-packages/${1//-/_}-*.dist-info" >/dev/null; }

case "${MMSOC_STACK:-}" in
  onedl | openmmlab) STACK="$MMSOC_STACK" ;;
  '') if has_distribution onedl-mmcv; then STACK=onedl; else STACK=openmmlab; fi ;;
  *) die "MMSOC_STACK=$MMSOC_STACK: expected openmmlab or onedl" ;;
esac
if [ "$STACK" = onedl ]; then
  STACK_FILE="$ROOT/requirements/onedl.txt"; OTHERS=(mmengine mmcv mmdet)
else
  STACK_FILE="$ROOT/requirements/mminstall.txt"; OTHERS=(onedl-mmengine onedl-mmcv onedl-mmdetection)
fi

# --- 1. the active Python, if it has everything
if [ -z "${MMSOC_PYTHON:-}" ]; then
  for candidate in python python3; do
    if command -v "$candidate" >/dev/null && fits "$candidate" && has_everything "$candidate"; then
      say "using $(command -v "$candidate") ($("$candidate" --version 2>&1)): it has everything"
      say_notes
      "$candidate" -c 'import sys; print(sys.executable)'
      exit 0
    fi
  done
fi

# --- 2. a .venv that an earlier run finished
PY="$VENV/bin/python"
if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(fingerprint)" ] && has_everything "$PY"; then
  say "using $VENV (already set up)"
  say_notes
  echo "$PY"
  exit 0
fi

# --- 3. make it.  Everything that can be known to fail is looked at before the long part starts.
BASE="${MMSOC_PYTHON:-}"
if [ -n "$BASE" ]; then
  command -v "$BASE" >/dev/null || die "MMSOC_PYTHON=$BASE: no such program"
  fits "$BASE" || die "MMSOC_PYTHON=$BASE is $("$BASE" --version 2>&1); expected Python 3.10 to 3.13"
else
  for candidate in python3 python3.12 python3.11 python3.13 python3.10; do
    if command -v "$candidate" >/dev/null && fits "$candidate"; then BASE="$candidate"; break; fi
  done
  [ -n "$BASE" ] || die "no Python 3.10 to 3.13 found (python3 is $(python3 --version 2>&1 || echo missing))" \
    "install one (Debian/Ubuntu: apt-get install python3.11 python3.11-venv python3.11-dev; conda: conda create -n mmsoc python=3.11)" \
    "or name it: MMSOC_PYTHON=/path/to/python bash $0"
fi
"$BASE" -c 'import venv, ensurepip' 2>/dev/null || die "$BASE cannot make a virtual environment (modules venv, ensurepip)" \
  "Debian/Ubuntu: apt-get install $(basename "$("$BASE" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')")-venv"
GET_COMPILER="Debian/Ubuntu: apt-get install g++    conda: conda install -c conda-forge gxx"
if ! command -v "${CXX:-c++}" >/dev/null && ! command -v g++ >/dev/null; then
  die "no C++ compiler (looked for ${CXX:-c++} and g++): mmcv's ops are compiled here" "$GET_COMPILER"
fi
COMPILER="${CXX:-$(command -v c++ || command -v g++)}"
# CXX may be two words ("ccache g++").
if ! COMPLAINT="$($COMPILER -std=c++17 -x c++ -fsyntax-only - 2>&1 <<<'int main() { return 0; }')"; then
  die "$COMPILER cannot compile a C++17 program: $COMPLAINT" "$GET_COMPILER"
fi
HEADER="$("$BASE" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h"
[ -f "$HEADER" ] || die "Python's headers are missing ($HEADER): mmcv's ops are compiled against them" \
  "Debian/Ubuntu: apt-get install $(basename "$("$BASE" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')")-dev"
FREE_KIB="$(df -Pk "$ROOT" | awk 'NR==2 {print $4}')"
[ -d "$VENV" ] || [ "$FREE_KIB" -ge $((NEEDED_GIB * 1024 * 1024)) ] || die \
  "only $((FREE_KIB / 1024)) MiB free on the disk of $ROOT; the environment needs about $NEEDED_GIB GiB" \
  "free some space, or put the checkout on another disk"

say "making $VENV with $($BASE --version 2>&1); mmcv is compiled on the way, 6 to 25 minutes on 2 cores (log: $LOG)"
if ! { [ -x "$PY" ] && "$PY" -c 'import pip' 2>/dev/null; }; then
  COMPLAINT="$("$BASE" -m venv --clear "$VENV" 2>&1)" || die "$VENV could not be made: $COMPLAINT" \
    "check that the folder is writable and that its disk has space ($(df -Pk "$ROOT" | awk 'NR==2 {print int($4 / 1024)}') MiB free)"
fi
: > "$LOG"

# Runs one step with its output in the log, a dot every 10 seconds, and the likeliest cause if it fails.
step() {
  local title="$1"; shift
  local start=$SECONDS before said
  before="$(wc -c <"$LOG")"
  printf '[setup] %s ' "$title" >&2
  "$@" >>"$LOG" 2>&1 &
  local pid=$!
  trap 'kill $pid 2>/dev/null; echo >&2; say "interrupted: run the same command again to go on"; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null && sleep 1 || break; done
    printf '.' >&2
  done
  local rc=0; wait "$pid" || rc=$?
  trap - INT TERM
  if [ "$rc" -eq 0 ]; then printf ' done (%d s)\n' "$((SECONDS - start))" >&2; return 0; fi
  printf ' FAILED\n' >&2
  said="$(tail -c "+$((before + 1))" "$LOG")"
  tail -n 15 <<<"$said" >&2
  if grep -qiE 'no space left|errno 28' <<<"$said"; then
    die "the disk is full (step: $title)" "free about $NEEDED_GIB GiB (df -h $ROOT), then run the same command again"
  elif grep -qiE 'Connection(Error| refused)|Temporary failure in name resolution|Name or service not known|Network is unreachable|Max retries|ConnectTimeout|ReadTimeout|ProxyError|NewConnectionError' <<<"$said"; then
    die "the package index cannot be reached (step: $title)" "check the network, or pip's proxy settings (pip config list), then run the same command again"
  elif grep -qiE 'Killed signal|cc1plus.*killed|out of memory' <<<"$said"; then
    die "the compiler ran out of memory (step: $title)" "run again with fewer jobs: MAX_JOBS=1 bash $0"
  fi
  if grep -qiE 'No matching distribution found|ResolutionImpossible' <<<"$said"; then
    die "no version of a package fits (step: $title; lines above)" \
      "a torch of your own: MMSOC_TORCH=\"torch==2.11.0\" bash $0; another Python: MMSOC_PYTHON=/path/to/python3.11 bash $0"
  fi
  die "step failed: $title" "the whole log: $LOG"
}

pip_install() { "$PY" -m pip install --disable-pip-version-check "$@"; }

# CUDA ops only where torch's CUDA and nvcc agree (a CPU torch beside an nvcc is common, and the reverse).
build_env() {
  "$PY" - "$ROOT/tools" "$COMPILER" <<'PYTHON'
import os, re, shlex, shutil, subprocess, sys, torch
nvcc = shutil.which('nvcc') or (os.path.join(os.environ['CUDA_HOME'], 'bin', 'nvcc') if os.environ.get('CUDA_HOME') else None)
release = None
if nvcc and os.path.exists(nvcc):
    found = re.search(r'release (\d+\.\d+)', subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout)
    release = found and found.group(1)
print('export MMCV_WITH_OPS=1')
sys.path.insert(0, sys.argv[1])
from check_env import needs_cxx20
if needs_cxx20(torch.__version__):
    # By PATH: CXX with a space in it would be two words.
    print('export PATH={}:"$PATH" CXX=cxx20.sh MMSOC_CXX={}'.format(*map(shlex.quote, sys.argv[1:])))
if torch.version.cuda and release == torch.version.cuda:
    print('export FORCE_CUDA=1')
    if needs_cxx20(torch.__version__):
        print('export PYTORCH_NVCC={}'.format(shlex.quote(f'env MMSOC_CXX={shlex.quote(nvcc)} cxx20.sh')))
    if not torch.cuda.is_available() and not os.environ.get('TORCH_CUDA_ARCH_LIST'):
        print('export TORCH_CUDA_ARCH_LIST="7.0;8.0;8.6;9.0"' if int(release.split('.')[0]) < 13 else 'export TORCH_CUDA_ARCH_LIST="8.0;8.6;9.0"')
    # nvcc alone is not the toolkit: torch carries the libraries' headers.
    headers = os.path.join(os.path.dirname(os.path.dirname(torch.__file__)), 'nvidia', 'cu' + release.split('.')[0], 'include')
    if os.path.isdir(headers):
        print(f'export CPATH="{headers}:${{CPATH:-}}"')
else:
    print('export FORCE_CUDA=0 CUDA_VISIBLE_DEVICES=')
print(f'MMCV_KIND="{"CUDA " + release if torch.version.cuda and release == torch.version.cuda else "CPU"}"')
PYTHON
}

mmcv_works() { "$PY" -c 'import mmcv.ops' 2>>"$LOG"; }
mmcv_has_cuda() { "$PY" -c 'import mmcv.ops as o, sys; sys.exit("not available" in str(o.get_compiling_cuda_version()))' 2>>"$LOG"; }

MMCV="$(grep -E '^(onedl-)?mmcv\b' "$STACK_FILE")"

# opencv-python needs libGL, which a bare server lacks; the three OpenCV wheels share one cv2 folder, so the headless one goes on top.
without_display() {
  "$PY" -c 'import cv2' 2>>"$LOG" || step "OpenCV without a display" pip_install --force-reinstall --no-deps opencv-python-headless
}

step "torch ($TORCH)" pip_install "$TORCH"
step "build tools" pip_install -r "$ROOT/requirements/build.txt"
# The other stack has the same modules: uninstalling it later would remove this one's files.
for name in "${OTHERS[@]}"; do
  if has_distribution "$name"; then step "removing $name" "$PY" -m pip uninstall --yes "$name"; fi
done
KIND="$(build_env)" || die "torch was installed but does not start" "the whole log: $LOG"
step "mmcv with compiled ops ($(eval "$KIND" >/dev/null; echo "$MMCV_KIND"))" \
  bash -c "$KIND
    \"$PY\" -m pip install --disable-pip-version-check --no-build-isolation '$MMCV'"
without_display  # mmcv imports OpenCV
# pip caches the wheel by version only: it may be one built for another torch, or without CUDA.
if ! mmcv_works || { [[ "$KIND" == *FORCE_CUDA=1* ]] && ! mmcv_has_cuda; }; then
  step "mmcv again (the cached wheel was built for another torch)" \
    bash -c "$KIND
      \"$PY\" -m pip install --disable-pip-version-check --no-build-isolation --no-cache-dir --force-reinstall --no-deps '$MMCV'"
  mmcv_works || die "mmcv was built but its ops cannot be imported" "the whole log: $LOG"
fi
step "$([ "$STACK" = onedl ] && echo "OneDL's forks of mmengine and mmdet; mmaction2" || echo "mmengine, mmdet, mmaction2")" pip_install -r "$STACK_FILE"
step "runtime and test packages" pip_install -r "$ROOT/requirements/runtime.txt" -r "$ROOT/requirements/optional.txt" -r "$ROOT/requirements/demo.txt" -r "$ROOT/requirements/tests.txt"
without_display
[ ! -f "$ROOT/setup.py" ] || step "mmsoc itself (editable)" pip_install --no-build-isolation --no-deps -e "$ROOT"
has_everything "$PY" || { printf '%s\n' "$NOTES" >&2; die "the environment is still not complete (lines above)" "the whole log: $LOG"; }
fingerprint > "$STAMP"
say "done: $VENV"
say_notes
echo "$PY"
