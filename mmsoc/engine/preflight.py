"""What would stop a run, or make it a different one from the one intended: found in seconds and all at once, before it starts.

tools/train.py, test.py and the scripts around them run it. `mim` and a launcher that is called directly do not.
"""

import copy
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from mmengine.runner import find_latest_checkpoint
from torch import nn

from mmsoc.registry import DATASETS
from mmsoc.utils.errors import UserError
from mmsoc.weights import WeightsNotFoundError, find, is_name
from mmsoc.weights.fetching import cache_dir

Task = Literal['train', 'test']

DONE = 'MMSOC_PREFLIGHT'
"""environment variable: set to anything, tools/train.py and test.py skip it; tools/dist_train.sh sets it after its own"""
_WEIGHT_FILES = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)
_TOKENIZER_FILES = ('tokenizer.json', 'vocab.json', 'vocab.txt', 'tokenizer_config.json')
SPLITS: dict[str, tuple[str, ...]] = {'train': ('train', 'val'), 'test': ('test',)}
STEP_BYTES_PER_PIXEL = 4500
"""activations of a training step in float32 with Video-Swin-T: docs/benchmarks.md, 8 x 360 x 640, without the weights"""


@dataclass(frozen=True)
class Finding:
    """A fault, or a thing to know."""

    level: Literal['error', 'warning', 'note']
    text: str
    remedy: str | None = None
    """a command, or what to change"""

    def __str__(self) -> str:
        lines = [f'{self.level}: {self.text}']
        if self.remedy:
            lines.append(f'    -> {self.remedy}')
        return '\n'.join(lines)


def preflight(
    cfg: Config, task: Task, processes: int = 1, checkpoint: str | None = None, resume: bool = False
) -> list[Finding]:
    """Checks data, weights, devices, disk and settings of a run.

    Args:
        cfg: with the command line's options.
        task: what the run does.
        processes: on this machine; 0 if they run on others, whose files and devices may differ: then errors become warnings.
        checkpoint: the checkpoint to test or resume from.
        resume: whether a training is resumed.

    Returns:
        The findings, errors first.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmsoc'):
        checks: list[Callable[[], Iterator[Finding]]] = [
            lambda: _data(cfg, task),
            lambda: _weights(cfg, task, checkpoint, resume),
        ]
        if processes:
            checks.append(lambda: _devices(processes))
        if task == 'train':
            continues = resume or bool(cfg.get('resume'))
            checks.append(lambda: _work_dir(cfg, continues))
            checks.append(lambda: _model(cfg, continues, processes))
            if processes:
                checks.append(lambda: _batch(cfg, processes * int(os.environ.get('NNODES', '1'))))
        found = [finding for check in checks for finding in check()]
    if not processes:
        found = [
            replace(finding, level='warning', text=f'{finding.text} (on this machine)')
            if finding.level == 'error'
            else finding
            for finding in found
        ]
    order = ('error', 'warning', 'note')
    return sorted(found, key=lambda finding: order.index(finding.level))


def report(found: Sequence[Finding], config: str) -> None:
    """Prints the findings.

    Raises:
        UserError: one of them is an error.
    """
    for finding in found:
        print(finding, file=sys.stderr)
    errors = sum(finding.level == 'error' for finding in found)
    if errors:
        raise UserError(
            f'{config}: {errors} of the above {"is an error" if errors == 1 else "are errors"}; nothing was started'
        )


def without_unscored_validation(cfg: Config) -> str | None:
    """Removes the validation of a training whose validation split has no masks, as in the public download.

    Returns:
        The reason, or None if the validation stays.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmsoc'):
        reasons = [reason for dataset in _datasets(cfg.get('val_dataloader')) if (reason := _why_not_scored(dataset))]
    if not reasons:
        return None
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    hook = (cfg.get('default_hooks') or {}).get('checkpoint')
    if hook:
        hook['save_best'] = None
    return reasons[0]


# ------------------------------------------------------------------------------------------------------------------- checks


def _dataset_configs(config: Any) -> Iterator[Mapping]:
    """Of the data sets of a loader, or of a list of loaders, without wrappers."""
    if isinstance(config, Sequence) and not isinstance(config, str):
        for part in config:
            yield from _dataset_configs(part)
    if not isinstance(config, Mapping):
        return
    if 'datasets' in config:
        yield from _dataset_configs(config['datasets'])
    elif 'dataset' in config and 'data_root' not in config:
        yield from _dataset_configs(config['dataset'])
    elif 'type' in config:
        yield config


def _datasets(config: Any) -> Iterator[Any]:
    """The data sets themselves, without their files; only those that can be built without.

    Raises:
        UserError: a data set refuses its config.
    """
    for part in _dataset_configs(config):
        kind = part['type'] if isinstance(part['type'], type) else DATASETS.get(part['type'])
        if kind is None or not issubclass(kind, BaseDataset):  # it has no `lazy_init`
            continue
        try:
            yield DATASETS.build({**part, 'lazy_init': True})
        except (KeyError, TypeError, AttributeError):
            continue  # the run itself will say what is wrong


def _why_not_scored(dataset: Any) -> str | None:
    return dataset.why_not_scored() if hasattr(dataset, 'why_not_scored') else None


def _data(cfg: Config, task: Task) -> Iterator[Finding]:
    said: set[str] = set()
    for split in SPLITS[task]:
        try:
            datasets = list(_datasets(cfg.get(f'{split}_dataloader')))
        except (UserError, OSError) as error:
            yield Finding('error', f'{split} data: {error}')
            continue
        for dataset in datasets:
            try:
                (dataset.check if hasattr(dataset, 'check') else partial(_check_paths, dataset))()
            except (UserError, OSError) as error:
                text = _short(str(error))
                if task == 'train' and (reason := _why_not_scored(dataset)):
                    yield Finding(
                        'warning',
                        f'the {split} split has no masks, so nothing is validated and no checkpoint is chosen ({_short(reason)})',
                        'docs/data.md says where the masks are; without them, score on the server (`SubmissionWriter`)',
                    )
                elif text not in said:
                    said.add(text)
                    yield Finding('error', f'{split} data: {text}', _data_remedy(dataset))


def _check_paths(dataset: Any) -> None:
    """
    Raises:
        FileNotFoundError: a folder or file of the data set is not there.
    """
    root = str(dataset.data_root or '')
    if '://' in root or getattr(dataset, 'backend_args', None):
        return  # another storage
    if root and not os.path.isdir(root) and not os.path.isabs(dataset.ann_file):
        raise FileNotFoundError(f'data_root: there is no folder {root} (looked in {os.getcwd()})')
    for name in ('ann_file', 'refs_file', 'mask_file', 'videoset_file', 'missed_file'):
        path = getattr(dataset, name, None)
        if path and not os.path.exists(path):
            raise FileNotFoundError(f'{name}: there is no file {path}')


def _data_remedy(dataset: Any) -> str:
    root = getattr(dataset, 'data_root', None)
    if root and not os.path.isdir(root):
        return f'unpack the data set in {root} (docs/data.md), or set MMSOC_DATA to the folder that holds it'
    return 'python tools/dataset_converters/check_data_root.py lists everything that is wrong with a data root'


def _weights(cfg: Config, task: Task, checkpoint: str | None, resume: bool) -> Iterator[Finding]:
    model = cfg.get('model') or {}
    encoder = model.get('text_encoder') or {}
    start = cfg.get('load_from') if task == 'train' and not resume else None
    for key, value in (('checkpoint', checkpoint), ('load_from', start)):
        if isinstance(value, str) and value:
            yield from _source(key, value)
    if task == 'train':  # initial weights are read even where a checkpoint replaces them
        pretrained = (model.get('backbone') or {}).get('pretrained')
        if isinstance(pretrained, str):
            yield from _source('model.backbone.pretrained', pretrained)
        if isinstance(encoder.get('pretrained'), str):
            yield from _from_hub('model.text_encoder.pretrained', encoder['pretrained'], _WEIGHT_FILES)
    tokenizer = encoder.get('tokenizer') or encoder.get('pretrained')
    if isinstance(tokenizer, str):
        yield from _from_hub('the tokenizer (model.text_encoder.tokenizer or pretrained)', tokenizer, _TOKENIZER_FILES)


def _source(key: str, source: str) -> Iterator[Finding]:
    """A checkpoint's path, address or name."""
    if is_name(source):
        try:
            weights = find(source)
        except WeightsNotFoundError as error:
            yield Finding('error', f'{key}: {error}')
            return
        local = weights.shipped_path or next(
            (path for address in weights.addresses if (path := cache_dir() / address.file).is_file()), None
        )
        if local is None:
            yield Finding(
                'note',
                f'{key}: {source} is downloaded first ({weights.size_text})',
                f'python tools/weights.py get {source}',
            )
    elif '://' not in source and not Path(source).exists():  # a folder: DeepSpeed's
        yield Finding(
            'error',
            f'{key}: there is no file {source} (looked in {Path.cwd()})',
            'python tools/weights.py list shows names',
        )


def _from_hub(key: str, name: str, files: Sequence[str]) -> Iterator[Finding]:
    """A folder, or a repository of the hub with one of ``files``."""
    if Path(name).is_dir():
        return
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError

    try:
        if any(isinstance(try_to_load_from_cache(name, file), str) for file in files):
            return
    except HFValidationError:
        yield Finding('error', f'{key}: {name} is neither a folder nor a name on the Hugging Face hub')
        return
    offline = constants.HF_HUB_OFFLINE
    yield Finding(
        'error' if offline else 'note',
        f'{key}: {name} is not in the cache of the Hugging Face hub'
        + (', and HF_HUB_OFFLINE is set' if offline else ' and is downloaded first'),
        f'hf download {name}, or a local folder: --cfg-options model.text_encoder.pretrained=FOLDER',
    )


def _devices(processes: int) -> Iterator[Finding]:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cores = len(os.sched_getaffinity(0))
    if gpus and processes > gpus:
        yield Finding(
            'error',
            f'{processes} processes, but PyTorch shows {gpus} GPUs',
            f'start {gpus}, or set CUDA_VISIBLE_DEVICES= to run on the CPU',
        )
    if not gpus and processes > cores:
        yield Finding(
            'warning',
            f'no GPU: {processes} processes share {cores} cores, and wait for each other',
            f'start at most {cores}',
        )
    elif not gpus:
        yield Finding('note', f'PyTorch {torch.__version__} shows no GPU: this runs on {cores} cores')
    if gpus:
        from mmcv.ops import get_compiling_cuda_version

        if 'not available' in str(get_compiling_cuda_version()):
            yield Finding(
                'warning',
                "mmcv's ops were built without CUDA: the deformable attention runs in PyTorch, several times slower",
                'see docs/installation.md',
            )


def _work_dir(cfg: Config, resume: bool) -> Iterator[Finding]:
    folder = Path(cfg.work_dir)
    latest = find_latest_checkpoint(folder) if folder.is_dir() and not resume else None
    if latest:
        yield Finding(
            'warning',
            f'{folder} already holds a run ({Path(latest).name}), which this one would overwrite',
            'go on with --resume, or choose another --work-dir',
        )
    existing = _existing(folder)
    if not os.access(existing, os.W_OK):
        yield Finding('error', f'work_dir: {existing} is not writable', 'choose another --work-dir')


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.resolve().parents) if path.exists())


def _model(cfg: Config, resume: bool, processes: int) -> Iterator[Finding]:
    """Whether the model can be built, and what it needs: memory for a step, disk for the checkpoints."""
    try:
        from mmsoc.registry import MODELS

        model = MODELS.build(copy.deepcopy(cfg.model))
    except (UserError, OSError) as error:
        yield Finding('error', f'model: {_short(str(error))}')
        return
    except Exception:  # the run itself will say what is wrong
        return
    if processes:
        yield from _memory(cfg, model, processes)
    existing = _existing(Path(cfg.work_dir))
    need = 0 if resume else _checkpoint_bytes(cfg, model)
    free = shutil.disk_usage(existing).free
    if need > free:
        yield Finding(
            'warning',
            f'work_dir: the checkpoints need about {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on the disk of {existing}',
            'free space, choose another --work-dir, or keep fewer: --cfg-options default_hooks.checkpoint.max_keep_ckpts=2',
        )


def _memory(cfg: Config, model: nn.Module, processes: int) -> Iterator[Finding]:
    """Whether a step of a `VideoSwin` fits, roughly: activations by the pixels of a batch and the size of the backbone."""
    backbone: Any = getattr(model, 'backbone', None)
    loader = cfg.get('train_dataloader') or {}
    pixels = max((_clip_pixels(part) for part in _dataset_configs(loader)), default=0)
    if not pixels or not hasattr(backbone, 'depths') or (cfg.model.get('backbone') or {}).get('with_cp'):
        return
    # Blocks times channels times tokens; 456 is that of Video-Swin-T.
    size = sum(depth * backbone.embed_dims / 2**stage for stage, depth in enumerate(backbone.depths)) / 456
    # Weights, gradients and two moments.
    fixed = sum((16 if weight.requires_grad else 4) * weight.numel() for weight in model.parameters())
    need = fixed + int(loader.get('batch_size') or 1) * pixels * STEP_BYTES_PER_PIXEL * size
    if torch.cuda.is_available():
        where, free = 'the GPU', torch.cuda.get_device_properties(0).total_memory
    else:
        where, free = 'this machine', psutil.virtual_memory().available
        need *= processes
    if need > free:
        yield Finding(
            'warning',
            f'a training step may need about {need / 1e9:.0f} GB of memory, and {where} has {free / 1e9:.0f} GB',
            'smaller frames, a smaller batch, --amp, or recomputation: --cfg-options model.backbone.with_cp=True',
        )


def _clip_pixels(dataset: Mapping) -> int:
    """Pixels of a training clip at the largest size that its pipeline can give; 0: not known."""

    def sizes(part: Any) -> Iterator[int]:
        if isinstance(part, Mapping):
            if isinstance(scale := part.get('scale'), Sequence) and len(scale) == 2:
                yield scale[0] * scale[1]
            if part.get('sides') and part.get('longest'):
                yield max(part['sides']) * part['longest']
        for inner in part.values() if isinstance(part, Mapping) else part:
            if isinstance(inner, Mapping | list | tuple):
                yield from sizes(inner)

    frames = (dataset.get('clip_sampler') or {}).get('num_frames', 1)
    return frames * max(sizes(dataset.get('pipeline') or []), default=0)


def _checkpoint_bytes(cfg: Config, model: nn.Module) -> int:
    """Weights and two moments of each, as AdamW's, in all checkpoints that are kept at once, the best and one being written."""
    parameters = list(model.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in parameters)
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    written = int((cfg.get('train_cfg') or {}).get('max_epochs') or 1) // max(int(hook.get('interval') or 1), 1)
    kept = hook.get('max_keep_ckpts', -1)
    kept = min(kept, written) if kept > 0 else written
    if not hook.get('save_optimizer', True):
        trained = 0
    return (kept + 1) * (4 * total + 8 * trained) + 4 * total


def _batch(cfg: Config, processes: int) -> Iterator[Finding]:
    loader = cfg.get('train_dataloader') or {}
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    batch = processes * int(loader.get('batch_size') or 1)
    if base and batch != base and not (cfg.get('auto_scale_lr') or {}).get('enable'):
        yield Finding(
            'warning',
            f'{processes} process{"es" if processes > 1 else ""} x batch_size {loader.get("batch_size")} = {batch}, but the '
            f'learning rate is for {base}',
            '--auto-scale-lr scales it',
        )


def _short(text: str, most: int = 300) -> str:
    text = ' '.join(text.split())
    return text if len(text) <= most else text[: most - 4] + ' ...'
