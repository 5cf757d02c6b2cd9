"""Prints the whole config, including everything it inherits: ``python tools/analysis_tools/print_config.py CONFIG``."""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc

from mmsoc.engine.cli import add_common_arguments, load_config, parse_arguments
from mmsoc.utils.errors import user_errors


@user_errors(status=2)
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('--save-path', help='also write it to this file (.py, .json or .yml)')
    args = parse_arguments(parser)
    if args.save_path and Path(args.save_path).suffix not in ('.py', '.json', '.yml', '.yaml'):
        parser.error(f'--save-path {args.save_path}: expected a name that ends in .py, .json, .yml or .yaml')
    cfg = load_config(args)
    print(cfg.pretty_text)
    if args.save_path:
        cfg.dump(args.save_path)


if __name__ == '__main__':
    main()
