#!/usr/bin/env bash
# Test on a Slurm cluster: bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
# Environment: see tools/_slurm.sh.
set -euo pipefail
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ $# -lt 4 ]; then
  echo "usage: bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]" >&2
  exit 2
fi
source "$TOOLS/_python.sh"
source "$TOOLS/_slurm.sh"
preflight test 0 "$3" --checkpoint "$4" "${@:5}"
slurm "$1" "$2" "$TOOLS/test.py" "$3" "$4" "${@:5}"
