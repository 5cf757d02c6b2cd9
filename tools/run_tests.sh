#!/usr/bin/env bash
# Runs every check of this package: bash tools/run_tests.sh [--slow] [arguments of pytest]
#
# Makes the environment first if there is none (tools/setup_env.sh). Without arguments: ruff (rules and format), mypy and all
# tests that are not marked `slow`; --slow: those too. Other arguments go to pytest as they are:
#   bash tools/run_tests.sh tests/test_engine -k resume
#
# Environment: MMSOC_REFERENCE (default: ../shared/reference beside the checkout; tests that need it skip where it is absent),
# OMP_NUM_THREADS (default: 1).
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
PYTHON="$(bash tools/setup_env.sh)"
export MMSOC_REFERENCE="${MMSOC_REFERENCE:-$ROOT/../shared/reference}"
# One process per core with one thread each, since two torch processes with two threads each would wait for each other, and one
# more, since some tests wait. At most 4, and one for each 4 GiB of memory.
CORES="$(getconf _NPROCESSORS_ONLN)"
GIB=$(( $(getconf _PHYS_PAGES) * $(getconf PAGESIZE) / 1024 / 1024 / 1024 ))
WORKERS=$(( CORES + 1 < 4 ? CORES + 1 : 4 ))
WORKERS=$(( WORKERS * 4 > GIB ? GIB / 4 : WORKERS ))
WORKERS=$(( WORKERS > 1 ? WORKERS : 1 ))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Nothing in the tests may need a network; this makes an attempt fail at once.
export HF_HUB_OFFLINE=1

SLOW=0
ARGS=()
for argument in "$@"; do
  if [ "$argument" = --slow ]; then SLOW=1; else ARGS+=("$argument"); fi
done
MARKER=(-m 'not slow')
for argument in ${ARGS[@]+"${ARGS[@]}"}; do [[ "$argument" != -m* ]] || MARKER=(); done
[ "$SLOW" -eq 0 ] || MARKER=()

if [ ${#ARGS[@]} -eq 0 ]; then
  echo '[tests] ruff: rules, then format'
  "$PYTHON" -m ruff check .
  "$PYTHON" -m ruff format --check .
  echo '[tests] mypy'
  "$PYTHON" -m mypy
  echo "[tests] pytest, $WORKERS processes: 7 to 15 minutes on two cores"
  # In the order of the files: those at the end are short, and no process works on alone for long.
  ARGS=(tests -q -n "$WORKERS" --dist loadfile --no-loadscope-reorder)
fi
exec "$PYTHON" -m pytest ${MARKER[@]+"${MARKER[@]}"} "${ARGS[@]}"
