# Sourced by the other scripts, with TOOLS set: sets PYTHON to the interpreter to use, and defines `preflight`.
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

# `preflight TASK NPROC CONFIG [ARGS...]` ends the script if something is missing. NPROC 0: the processes run on another machine.
preflight() {
  [ -z "${MMSOC_PREFLIGHT:-}" ] || return 0
  [[ "$2" =~ ^[0-9]+$ ]] || return 0  # an error that `launch` names
  "$PYTHON" "$TOOLS/preflight.py" --task "$1" --nproc "$2" "${@:3}" || exit $?
  export MMSOC_PREFLIGHT=done
}
