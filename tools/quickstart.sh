#!/usr/bin/env bash
# From a bare machine to a trained SOC:
#   bash tools/quickstart.sh [--procs N] [--gpus N] [--minutes M] [--from-scratch] [--work-dir DIR]
#
# Sets the environment up (tools/setup_env.sh), shows soc-mini at work, generates MovingShapes, trains a small SOC on it, scores
# both on held-out videos, and writes tables, curves and images to the work directory. It can be interrupted at any time; run it
# again to resume.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="$(bash "$ROOT/tools/setup_env.sh")"
export PYTHON
exec "$PYTHON" "$ROOT/tools/quickstart.py" "$@"
