"""Sphinx's settings; `bash tools/build_docs.sh` builds the pages."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault('HF_HUB_OFFLINE', '1')  # importing the package for its docstrings needs no network

project = 'mmsoc'
author = 'The mmsoc authors'
project_copyright = 'The mmsoc authors'
release = version = re.search(r"__version__ = '(.+)'", (ROOT / 'mmsoc' / 'version.py').read_text()).group(1)

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
exclude_patterns = ['_build', 'examples']
# Docstrings name things in single backticks.
default_role = 'code'

myst_heading_anchors = 3

autodoc_default_options = dict(members=True)
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_preserve_defaults = True
# The docstrings of mmdet, mmcv and mmengine are not ours to check.
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = 'furo'
html_title = f'mmsoc {release}'
