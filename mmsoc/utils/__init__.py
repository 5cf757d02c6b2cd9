"""What every other part may stand on: files, masks, devices. Nothing is imported here, since some of it needs no PyTorch."""
