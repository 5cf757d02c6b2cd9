#!/usr/bin/env bash
# Train on a Slurm cluster: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# Environment: see tools/_slurm.sh.
set -euo pipefail
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ $# -lt 4 ]; then
  echo "usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]" >&2
  exit 2
fi
source "$TOOLS/_python.sh"
source "$TOOLS/_slurm.sh"
preflight train 0 "$3" --work-dir="$4" "${@:5}"
slurm "$1" "$2" "$TOOLS/train.py" "$3" --work-dir="$4" "${@:5}"
