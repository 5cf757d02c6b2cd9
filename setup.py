"""Packaging of mmsoc. The versions of its dependencies are in requirements/*.txt and nowhere else."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def requirements(name):
    """The requirement lines of requirements/NAME.txt."""
    lines = (line.split('#')[0].strip() for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines())
    return [line for line in lines if line]


class BuildWithMim(build_py):
    """Ships configs, tools and the model index in ``mmsoc/.mim``, where MMEngine and MIM look for them.

    ``_base_ = 'mmsoc::soc/soc_swin-t_ytvos.py'`` and ``mim train mmsoc ...`` work with an installed package then; an editable
    installation gets links to the checkout's own.
    """

    def run(self):
        super().run()
        target = (ROOT if self.editable_mode else Path(self.build_lib)) / 'mmsoc' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in ('configs', 'tools', 'model-index.yml'):
            source = ROOT / name
            if self.editable_mode:
                (target / name).symlink_to(source, target_is_directory=source.is_dir())
            elif source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy2(source, target / name)


EXTRAS = {name: requirements(name) for name in ('mminstall', 'optional', 'demo', 'tests', 'docs')}

setup(
    name='mmsoc',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'mmsoc' / 'version.py').read_text()).group(1),
    description='Referring video object segmentation with SOC (NeurIPS 2023) on OpenMMLab',
    long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    author='The mmsoc authors',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',
    packages=find_packages(include=['mmsoc', 'mmsoc.*']),
    include_package_data=True,
    cmdclass=dict(build_py=BuildWithMim),
    # torch and the OpenMMLab packages are not here: pip cannot build mmcv unattended (see tools/setup_env.sh).
    install_requires=requirements('runtime'),
    # OneDL's forks have the same modules as the packages of `mminstall`: not in `all`.
    extras_require={
        **EXTRAS,
        'onedl': requirements('onedl'),
        'all': requirements('runtime') + [line for lines in EXTRAS.values() for line in lines],
    },
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    zip_safe=False,
)
