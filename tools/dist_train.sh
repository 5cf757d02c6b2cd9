#!/usr/bin/env bash
# Train in several processes: bash tools/dist_train.sh CONFIG NPROC [arguments of tools/train.py]
# Environment: see tools/_launch.sh.
set -euo pipefail
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ $# -lt 2 ]; then
  echo "usage: bash tools/dist_train.sh CONFIG NPROC [arguments of tools/train.py]" >&2
  exit 2
fi
source "$TOOLS/_python.sh"
source "$TOOLS/_launch.sh"
preflight train "$2" "$1" "${@:3}"
launch "$2" "$TOOLS/train.py" "$1" "${@:3}"
