#!/usr/bin/env bash
# Builds the pages of docs/ as HTML: bash tools/build_docs.sh [arguments of sphinx-build]
#
# Makes the environment first if there is none (tools/setup_env.sh) and installs requirements/docs.txt into it. A warning is an error.
# The pages' entry: docs/_build/html/index.html
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
PYTHON="$(bash tools/setup_env.sh)"
"$PYTHON" -m pip install --disable-pip-version-check --quiet -r requirements/docs.txt
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$PYTHON" -m sphinx -W --keep-going -b html "$@" docs docs/_build/html
echo "$ROOT/docs/_build/html/index.html"
