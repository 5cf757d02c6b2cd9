"""Does this Python have everything that mmsoc needs?  ``python tools/check_env.py``

Reads ``requirements/*.txt`` (one list, no second copy of the versions here), compares it with what is installed, and
imports what is known to install without working: the compiled ops of mmcv and OpenCV.  Exit status 0 if all is well,
else 1 with one line per fault on standard error.  Needs nothing but the standard library to say what is wrong.
"""

import argparse
import importlib
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_SETS = ('build', 'mminstall', 'runtime', 'tests')
# Distributions that come under several names and share one importable module.
SAME_MODULE = {'opencv-python': ('opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')}


def requirement_lines(name):
    for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines():
        line = line.split('#')[0].strip()
        if line:
            yield line


def faults(sets):
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ['packaging is not installed']
    found = []
    for name in sets:
        for line in requirement_lines(name):
            requirement = Requirement(line)
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                found.append(f'{line}: not installed (requirements/{name}.txt)')
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                found.append(f'{line}: {version} is installed (requirements/{name}.txt)')
    if found:
        return found
    # mmcv's sdist also installs without its compiled extension, and OpenCV's wheel without the system's libGL: import
    # them.
    for module, remedy in (
        ('cv2', 'install opencv-python-headless'),
        ('mmcv.ops', 'mmcv was built without its ops, or for another torch'),
    ):
        try:
            importlib.import_module(module)
        except Exception as error:  # an ABI mismatch raises OSError, ImportError or worse
            found.append(f'import {module}: {type(error).__name__}: {error} ({remedy})')
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('sets', nargs='*', default=DEFAULT_SETS, help='names of files in requirements/ (without .txt)')
    args = parser.parse_args()
    found = faults(args.sets)
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
