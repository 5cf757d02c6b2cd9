#!/usr/bin/env bash
# Test in several processes: bash tools/dist_test.sh CONFIG CHECKPOINT NPROC [arguments of tools/test.py]
# Environment: see tools/_launch.sh.
set -euo pipefail
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ $# -lt 3 ]; then
  echo "usage: bash tools/dist_test.sh CONFIG CHECKPOINT NPROC [arguments of tools/test.py]" >&2
  exit 2
fi
source "$TOOLS/_python.sh"
source "$TOOLS/_launch.sh"
preflight test "$3" "$1" --checkpoint "$2" "${@:4}"
launch "$3" "$TOOLS/test.py" "$1" "$2" "${@:4}"
