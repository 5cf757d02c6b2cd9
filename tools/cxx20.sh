#!/usr/bin/env bash
# The C++ and CUDA compiler for mmcv with PyTorch 2.14 and newer, whose headers are C++20, while mmcv's setup.py passes -std=c++17
# (open-mmlab/mmcv#3341):
#
#   export PATH="$PWD/tools:$PATH" CXX=cxx20.sh PYTORCH_NVCC="env MMSOC_CXX=nvcc cxx20.sh"
#   MMCV_WITH_OPS=1 pip install --no-build-isolation "mmcv>=2.1.0,<2.2"
#
# Environment:
#   MMSOC_CXX  the compiler itself (default: c++)
exec ${MMSOC_CXX:-c++} "${@/#-std=c++17/-std=c++20}"
