#!/usr/bin/env bash
# From a bare machine to a trained SOC: bash tools/quickstart.sh [--procs N] [--gpus N] [--minutes M] [--work-dir DIR]
#
# Sets the environment up (tools/setup_env.sh), generates MovingShapes, trains a small SOC on it, scores it on videos that it has never
# seen, and leaves tables, curves and pictures in the work directory.  Stop it whenever you like: run again, it goes on where it was.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="$(bash "$ROOT/tools/setup_env.sh")"
export PYTHON
exec "$PYTHON" "$ROOT/tools/quickstart.py" "$@"
