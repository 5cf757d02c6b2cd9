"""Weights by name: what there is, and downloads.

    python tools/weights.py list
    python tools/weights.py get soc-mini video-swin-t

Downloads go to PyTorch's cache (``TORCH_HOME``). They go on where they were interrupted, and are checked by their sum. What `list`
shows can be named wherever a checkpoint is expected: ``--weights NAME``, ``load_from=NAME``, ``backbone.pretrained=NAME``.
``MMSOC_WEIGHTS`` names a folder or an address that has the files, and is tried first. A proxy is used as ``HTTPS_PROXY`` says.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that a checkout works where mmsoc is not installed

from mmsoc.utils.errors import user_errors
from mmsoc.weights import TABLE, fetch, find, markdown_table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True, metavar='list | get')
    listing = commands.add_parser('list', help='all weights, with licence, size, scores and who measured them')
    listing.add_argument('--markdown', action='store_true', help='as the table of docs/model_zoo.md')
    getting = commands.add_parser('get', help='download weights; prints the path of each')
    getting.add_argument('names', nargs='+', metavar='NAME')
    return parser.parse_args()


def describe(name: str) -> str:
    weights = TABLE[name]
    scores = ', '.join(f'{key} {score:g}' for key, score in weights.scores.items())
    lines = [
        f'{name}: {weights.what}',
        f'  licence {weights.license}; {weights.size_text}'
        + (f'; {scores} on {weights.scored_on} ({weights.measured_by})' if scores else ''),
        *([f'  config {weights.config}'] if weights.config else []),
        *([f'  comes with mmsoc: {weights.shipped_path}'] if weights.shipped else []),
        *(
            f'  {address.url}' + (f' (sha256 {address.sha256})' if address.sha256 else '')
            for address in weights.addresses
        ),
    ]
    return '\n'.join(lines)


@user_errors()
def main() -> None:
    args = parse_args()
    if args.command == 'list':
        print(markdown_table() if args.markdown else '\n'.join(map(describe, TABLE)))
        return
    for name in args.names:
        find(name)  # an unknown name is an error before the first download
    for name in args.names:
        print(fetch(name))


if __name__ == '__main__':
    main()
