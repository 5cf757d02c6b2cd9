# Sourced by the other scripts: sets PYTHON to the interpreter to use.
# $PYTHON if set, else the active `python` if MMEngine is installed there, else .venv of this checkout.
if [ -z "${PYTHON:-}" ]; then
  for candidate in python python3 "$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/python"; do
    if command -v "$candidate" >/dev/null 2>&1 &&
       "$candidate" -c 'import sys, importlib.util as u; sys.exit(u.find_spec("mmengine") is None)' 2>/dev/null; then
      PYTHON="$candidate"
      break
    fi
  done
  if [ -z "${PYTHON:-}" ]; then
    echo "ERROR: no Python with MMEngine found (looked at python, python3 and .venv). Run: bash tools/setup_env.sh, or set PYTHON=/path/to/python" >&2
    exit 1
  fi
fi
