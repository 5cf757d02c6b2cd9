"""For a Hugging Face Space: the page of tools/demo.py with soc-mini."""

from mmsoc.apis.page import Limits, serve

serve(['soc-mini'], host='0.0.0.0', limits=Limits(frames=300, upload='50mb'))
