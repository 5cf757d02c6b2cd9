"""Utilities for all other packages: files, masks, devices. Imports nothing, since some of them need no PyTorch."""
