"""The folder layout of the Hugging Face Hub."""

from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelHubMixin, hf_hub_download

from mmsoc.utils.checkpoints import write_safetensors
from mmsoc.version import __version__

from .model_loading import LoadedModel

WEIGHTS = 'model.safetensors'
_VERSION = 'mmsoc_version'

T = TypeVar('T', bound='HubMixin')


class HubMixin(  # type: ignore[call-arg]
    ModelHubMixin,
    library_name='mmsoc',
    paper_url='https://arxiv.org/abs/2305.17011',
    pipeline_tag='image-segmentation',
    tags=['referring-video-object-segmentation', 'soc'],
):
    """``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` of huggingface_hub for `SOCInferencer`.

    A folder holds ``model.safetensors`` with weights and config (`write_safetensors`), ``config.json`` with mmsoc's version, by
    which the hub counts downloads, and ``README.md``, a model card.
    """

    loaded: LoadedModel

    def _save_pretrained(self, save_directory: Path) -> None:
        self._hub_mixin_config = {_VERSION: __version__}  # the mixin's own would be the arguments, with local paths
        model, cfg = self.loaded.model, self.loaded.cfg
        write_safetensors(save_directory / WEIGHTS, model.state_dict(), cfg.pretty_text)

    @classmethod
    def _from_pretrained(
        cls: type[T],
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **options: Any,
    ) -> T:
        config = options.get('config')
        if isinstance(config, dict) and _VERSION in config:
            del options['config']  # the mixin's config.json
        path = Path(model_id) / WEIGHTS
        if not Path(model_id).is_dir():
            path = Path(
                hf_hub_download(
                    model_id,
                    WEIGHTS,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        return cls(weights=path, **options)
