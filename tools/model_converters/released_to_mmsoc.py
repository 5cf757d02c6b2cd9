"""Converts a checkpoint of the released SOC or ReferFormer implementation to mmsoc's format, or back.

    python tools/model_converters/released_to_mmsoc.py IN OUT
    python tools/model_converters/released_to_mmsoc.py --model referformer IN OUT
    python tools/model_converters/released_to_mmsoc.py --reverse IN OUT

The released SOC keeps the weights under ``model_state_dict``, ReferFormer under ``model``, mmsoc under ``state_dict``; IN
may also be the state dict itself, or a .safetensors file. mmsoc's checkpoint belongs to a model of ``configs/soc/released/``
or ``configs/referformer/``. It must contain exactly the expected weights with their shapes: otherwise nothing is written, and
the error lists weights that are missing, unexpected or of the wrong shape. No code in IN is executed.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc

import torch

from mmsoc.conversion import ReferFormerStateDictAdapter, ReleasedStateDictAdapter
from mmsoc.utils.checkpoints import read_checkpoint, weights_of
from mmsoc.utils.errors import UserError, user_errors
from mmsoc.utils.files import atomic_path

MODELS = dict(
    soc=(ReleasedStateDictAdapter, 'model_state_dict'),
    referformer=(ReferFormerStateDictAdapter, 'model'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='IN', help='checkpoint to read')
    parser.add_argument('target', metavar='OUT', help='checkpoint to write')
    parser.add_argument('--model', choices=MODELS, default='soc', help='whose weights (default: %(default)s)')
    parser.add_argument('--reverse', action='store_true', help="from mmsoc's checkpoint to a released one")
    return parser.parse_args()


def convert(source: str, target: str, reverse: bool, model: str = 'soc') -> str:
    """Writes ``target``; returns a one-line summary."""
    kind, released_key = MODELS[model]
    adapter = kind()
    sides = [('released', released_key, adapter.to_mmsoc), ('mmsoc', 'state_dict', adapter.to_released)]
    (old, key, function), (new, new_key, _) = reversed(sides) if reverse else sides
    weights = weights_of(read_checkpoint(source, weights_key=key, what='checkpoint'), key)
    try:
        converted = function(weights)
    except UserError as error:
        raise UserError(f'{source}: {error}') from None
    with atomic_path(target) as temporary:
        torch.save({new_key: converted, 'meta': dict(converted_from=Path(source).name)}, temporary)
    return f'{len(weights)} {old} keys -> {len(converted)} {new} keys: {target}'


@user_errors()
def main() -> None:
    args = parse_args()
    print(convert(args.source, args.target, args.reverse, args.model))


if __name__ == '__main__':
    main()
