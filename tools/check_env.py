"""Checks that this Python has everything mmsoc needs: ``python tools/check_env.py``

Compares ``requirements/*.txt`` (the only list of versions) with the installed packages, and imports those that may be
installed but broken: the compiled ops of mmcv, and OpenCV. Where one of OneDL's forks is installed, ``onedl.txt``
takes the place of ``mminstall.txt``. Exit status 0 if there is no fault, else 1 with one line per fault on standard
error. Slow but working parts are noted on standard error, with status 0. To report faults it needs only the standard
library.
"""

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_SETS = ('build', 'mminstall', 'runtime', 'tests')
# Distributions with several names that share one importable module.
SAME_MODULE = {'opencv-python': ('opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')}
# Sets of distributions that share modules.
STACKS = {'openmmlab': 'mminstall', 'onedl': 'onedl'}


def installed(distribution):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def requirement_lines(name):
    for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines():
        line = line.split('#')[0].strip()
        if line:
            yield line


def names_only_in(name, other):
    """The distributions of one set that the other does not have, in the order of the file."""
    names, others = ([re.match(r'[\w-]+', line)[0] for line in requirement_lines(key)] for key in (name, other))
    return [key for key in names if key not in others]


def installed_stack():
    return 'onedl' if any(map(installed, names_only_in('onedl', 'mminstall'))) else 'openmmlab'


def faults(sets, stack):
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ['packaging is not installed']
    found = []
    if stack == 'onedl' and 'mminstall' in sets:
        for name in filter(installed, names_only_in('mminstall', 'onedl')):
            found.append(f"{name}: installed beside OneDL's forks, one of which has the same modules")
    for name in (STACKS[stack] if name == 'mminstall' else name for name in sets):
        for line in requirement_lines(name):
            requirement = Requirement(line)
            version = installed(requirement.name)
            if version is None:
                found.append(f'{line}: not installed (requirements/{name}.txt)')
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                found.append(f'{line}: {version} is installed (requirements/{name}.txt)')
    if found:
        return found
    # mmcv's sdist can be installed without its compiled extension, OpenCV's wheel without the system's libGL: import
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


def nvcc_release():
    """The release of the CUDA compiler that a build would find ('13.0'), or None."""
    home = os.environ.get('CUDA_HOME')
    nvcc = shutil.which('nvcc') or (home and shutil.which(os.path.join(home, 'bin', 'nvcc')))
    if not nvcc:
        return None
    said = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout
    found = re.search(r'release (\d+\.\d+)', said)
    return found and found.group(1)


def needs_cxx20(torch_version):
    """Whether mmcv has to be compiled by tools/cxx20.sh."""
    return tuple(map(int, torch_version.split('.')[:2])) >= (2, 14)


def notes():
    """Parts of this environment that work but are slow; only meaningful without `faults`."""
    import torch
    from mmcv.ops import get_compiling_cuda_version

    cuda = torch.version.cuda
    if not cuda or 'not available' not in get_compiling_cuda_version():
        return []
    seen = 'PyTorch sees a GPU' if torch.cuda.is_available() else f'PyTorch is a build for CUDA {cuda}'
    release = nvcc_release()
    nvcc = f'the nvcc here is of CUDA {release}' if release else 'there is no nvcc here'
    lines = requirement_lines(STACKS[installed_stack()])
    mmcv = next(line for line in lines if re.match(r'(onedl-)?mmcv\b', line))
    cxx = f'PATH="{ROOT}/tools:$PATH" CXX=cxx20.sh PYTORCH_NVCC="env MMSOC_CXX=nvcc cxx20.sh" '
    return [
        f'{seen}, but mmcv was built without CUDA ops: on a GPU, deformable attention falls back to PyTorch sampling, '
        'which gives the same numbers but takes more time and memory',
        f"remedy: install the CUDA toolkit (nvcc) {cuda}, PyTorch's version ({nvcc}), then build mmcv again: "
        f'{cxx if needs_cxx20(torch.__version__) else ""}FORCE_CUDA=1 '
        f'MMCV_WITH_OPS=1 {sys.executable} -m pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps '
        f'"{mmcv}"',
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('sets', nargs='*', default=DEFAULT_SETS, help='names of files in requirements/ (without .txt)')
    parser.add_argument(
        '--stack',
        choices=list(STACKS),
        default=installed_stack(),
        help="OpenMMLab's packages or OneDL's forks (default: as installed)",
    )
    args = parser.parse_args()
    found = faults(args.sets, args.stack)
    for fault in found:
        print(fault, file=sys.stderr)
    if not found and 'mminstall' in args.sets:
        for note in notes():
            print(f'note: {note}', file=sys.stderr)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
