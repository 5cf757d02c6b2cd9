"""Builds a model for prediction from a config and a checkpoint."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.hub import get_config
from mmengine.registry import DefaultScope, Registry
from mmengine.runner.checkpoint import _load_checkpoint_to_model

from mmsoc.engine.cli import merge_options, read_config, warn_of_variables
from mmsoc.engine.hooks.strict_load_hook import StrictLoadHook
from mmsoc.models import SOC
from mmsoc.registry import HOOKS, MODELS
from mmsoc.utils.checkpoints import config_of_checkpoint
from mmsoc.utils.errors import UserError
from mmsoc.weights import find, is_name, load_checkpoint


class LoadedModel(NamedTuple):
    """A model in evaluation mode, with its origin."""

    model: SOC
    cfg: Config
    scope: str
    """of the registries"""
    config: str | None
    """the config's file; None if it was in the checkpoint"""
    weights: str


def load(weights: str | Path, config: str | Path | None = None, device: str | torch.device | None = None) -> SOC:
    """The network of a checkpoint or of weights by name, in evaluation mode: ``load('soc-mini')``.

    Args:
        weights: checkpoint, URL or a name that ``tools/weights.py list`` shows.
        config: as in `load_model`.
        device: None: a GPU if available.

    Raises:
        FileNotFoundError: see `load_model`.
        UserError: see `load_model`.
    """
    return load_model(config, weights, device).model


def load_model(
    config: str | Path | Config | Mapping | None,
    weights: str | Path | None,
    device: str | torch.device | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Builds a config's model and loads a checkpoint into it, tensor by tensor.

    Args:
        config: config file, ``mmsoc::soc/NAME.py`` of the installed package, or a config. None: the config of weights
            by name, or the one that MMEngine stored in the checkpoint.
        weights: checkpoint, URL or name (`mmsoc.weights`). No other weights are loaded: ``pretrained`` of backbone and
            text encoder is not read, except to find the tokenizer (``model.text_encoder.tokenizer``, else
            ``model.text_encoder.pretrained``).
        device: None: a GPU if available.
        cfg_options: changes to the config, ``{'model.test_cfg.output.mask_threshold': 0.4}``.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: no weights or no config, the checkpoint is broken or does not fit the model (`StrictLoadHook`), the
            model is not a SOC, or the device is not available.
    """
    if weights is None:
        raise UserError('weights: expected a checkpoint, found none')
    weights = os.fspath(weights)
    device = check_device(device)
    checkpoint = load_checkpoint(weights)
    if config is None and is_name(weights):
        config = find(weights).config
    if config is None:
        cfg, name = config_of_checkpoint(checkpoint, weights), None
    else:
        cfg, name = _read_config(config)
    options = dict(cfg_options or {})
    warn_of_variables(cfg, options)
    merge_options(cfg, options)
    if cfg.get('model') is None:
        raise UserError(f'config {name or weights}: expected the key `model`, found {sorted(cfg)}')
    scope = cfg.get('default_scope') or 'mmsoc'
    with DefaultScope.overwrite_default_scope(scope):
        model = _build(cfg, checkpoint, weights)
    return LoadedModel(model.to(device).eval(), cfg, scope, name, weights)


def _build(cfg: Config, checkpoint: dict, weights: str) -> SOC:
    try:
        model = MODELS.build(cfg.model)  # reads no `pretrained`: that is for init_weights
    except (UserError, FileNotFoundError) as error:
        if 'text_encoder.pretrained' not in str(error):
            raise
        raise type(error)(
            f'{error}; a folder that is elsewhere on this machine: --cfg-options model.text_encoder.pretrained=FOLDER '
            "(in Python cfg_options={'model.text_encoder.pretrained': 'FOLDER'})"
        ) from error
    if not isinstance(model, SOC):
        raise UserError(f'config key `model`: expected a SOC, found {type(model).__name__}')
    problem = _load_hook(cfg).mismatch(model.state_dict(), checkpoint.get('state_dict', checkpoint))
    if problem:
        raise UserError(f'checkpoint {weights} does not fit the model {type(model).__name__}:\n{problem}')
    _load_checkpoint_to_model(model, checkpoint)
    return model


def _load_hook(cfg: Config) -> StrictLoadHook:
    """The config's, which may make exceptions."""
    for hook in cfg.get('custom_hooks') or ():
        if class_of(HOOKS, hook['type']) is StrictLoadHook:
            return HOOKS.build(dict(hook))
    return StrictLoadHook()


def class_of(registry: Registry, kind: str | type) -> type:
    """The class of a config's ``type=``; `object` for an unknown name, which the builder reports in more detail."""
    return kind if isinstance(kind, type) else registry.get(kind) or object


def check_device(device: str | torch.device | None) -> str:
    """The device's name.

    Raises:
        UserError: this machine has no such device.
    """
    if device is None:
        return get_device()
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise UserError(f'device {device!r}: expected cpu, cuda, cuda:1, ...; {str(error).splitlines()[0]}') from None
    if wanted.type == 'cuda' and not torch.cuda.is_available():
        raise UserError(
            f'device {device!r}: this machine shows no GPU to PyTorch {torch.__version__} (torch.cuda.is_available() is '
            'False); use cpu'
        )
    if wanted.type == 'cuda' and (wanted.index or 0) >= torch.cuda.device_count():
        raise UserError(f'device {device!r}: there are {torch.cuda.device_count()} GPUs, counted from 0')
    return str(wanted)


def _read_config(config: str | Path | Config | Mapping) -> tuple[Config, str | None]:
    """A copy of the config, and its file."""
    if isinstance(config, Config):
        return Config(config._cfg_dict.to_dict()), config.filename
    if isinstance(config, Mapping):
        return Config(ConfigDict(config).to_dict()), None
    path = os.fspath(config)
    if '::' in path:
        return get_config(path), path
    if not Path(path).is_file():
        found = 'it is a folder' if Path(path).is_dir() else f'there is no such file (looked in {os.getcwd()})'
        raise FileNotFoundError(f'config {path}: {found}')
    return read_config(path), path
