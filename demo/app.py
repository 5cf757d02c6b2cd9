"""For a Hugging Face Space: the page of tools/demo.py with soc-mini."""

from pathlib import Path

from mmsoc.apis.page import Limits, build_page, launch_options

LIMITS = Limits(frames=300, upload='50mb')
FOLDER = Path('/tmp/mmsoc-demo')

FOLDER.mkdir(exist_ok=True)
build_page(folder=FOLDER, limits=LIMITS).launch(**launch_options(FOLDER, LIMITS))
