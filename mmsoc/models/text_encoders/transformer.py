from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.utils import digit_version
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from mmsoc.registry import TASK_UTILS
from mmsoc.structures import TextFeatures
from mmsoc.utils.device import to_device
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import listed, load_json

_ARCHITECTURE = (
    'vocab_size',
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'intermediate_size',
    'max_position_embeddings',
    'type_vocab_size',
    'layer_norm_eps',
    'hidden_act',
    'pad_token_id',
)
"""Keys of `config.json` that affect the weights' results, and do not all follow from their shapes."""


def _download(name: str) -> str:
    return f'hf download {name} --local-dir {Path(name).name}'


def _not_found(pretrained: str, error: OSError) -> FileNotFoundError:
    return FileNotFoundError(
        f'the text encoder {pretrained!r} (config key `text_encoder.pretrained`) can be neither found locally nor '
        f'downloaded; on a machine with a network `{_download(pretrained)}`, then give the folder: --cfg-options '
        f'model.text_encoder.pretrained=FOLDER ({error})'
    )


class TransformerTextEncoder(BaseModule):
    """A pre-trained transformer of one family, and a resizer of its word and sentence features to C channels (paper
    section 3.1).

    The sentence feature is the family's pooled first token. A subclass names the family: weights of another one can have the
    same names, but other positions, special tokens or words, and give wrong features without an error.

    Args:
        pretrained: a hub name or a local folder of a model of the family, whose weights are read only in `init_weights`.
            None: from scratch.
        config: sizes of the encoder, overriding those of the family's base model (keys of its config in transformers). By
            default those of ``pretrained``; if given, they must agree with its `config.json`.
        tokenizer: a hub name or a local folder, or the config of a registered tokenizer (``TASK_UTILS``):
            a callable that maps ``list[str]`` to ``dict(input_ids=list[list[int]])``. By default that of
            ``pretrained``.
        out_channels: C.
        dropout: dropout after the resizer.
        frozen: the transformer is not trained and runs in evaluation mode (no dropout); the resizer is trained.
    """

    model_type: ClassVar[str]
    """the family, as in ``config.json``; the transformer is the submodule of this name"""
    model_class: ClassVar[type[PreTrainedModel]]
    config_class: ClassVar[type[PretrainedConfig]]
    tokenizer_class: ClassVar[type[PreTrainedTokenizerBase]]
    tokenizer_files: ClassVar[str]
    """what a tokenizer's folder holds, for messages"""
    base_sizes: ClassVar[dict[str, Any]]
    """of the family's base model"""
    hub_sizes: ClassVar[dict[str, dict[str, Any]]]
    """by hub name; hard-coded rather than fetched, so that every config builds offline"""

    def __init__(
        self,
        *,
        pretrained: str | None,
        config: dict | None = None,
        tokenizer: str | dict | None = None,
        out_channels: int = 256,
        dropout: float = 0.1,
        frozen: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        name = type(self).__name__
        if tokenizer is None and pretrained is None:
            raise UserError(
                f'{name}: with `pretrained=None` a `tokenizer` is needed, '
                "e.g. dict(type='HashTokenizer', vocab_size=8192)"
            )
        if pretrained is None and frozen:
            raise UserError(
                f'{name}: `frozen=True` with `pretrained=None` would freeze random weights; '
                'set `frozen=False`, or name weights in `pretrained` '
                '(if a checkpoint will supply them, keep `pretrained` and do not call init_weights)'
            )
        self.pretrained = pretrained
        self.frozen = frozen
        self._tokenizer_source = tokenizer if tokenizer is not None else pretrained
        self._tokenizer: Callable[..., Any] | None = None
        setattr(self, self.model_type, self.model_class(self.config_class(**self._sizes(pretrained, config))))
        if frozen:
            self.encoder.requires_grad_(False)
        self.resizer = nn.Sequential(
            nn.Linear(self.encoder.config.hidden_size, out_channels),
            nn.LayerNorm(out_channels, eps=1e-12),
            nn.Dropout(dropout),
        )

    @property
    def encoder(self) -> PreTrainedModel:
        return getattr(self, self.model_type)

    @classmethod
    def _sizes(cls, pretrained: str | None, config: dict | None) -> dict:
        if config is not None:
            return {**cls.base_sizes, **config}
        if pretrained is None:
            return cls.base_sizes
        if pretrained in cls.hub_sizes:
            return cls.hub_sizes[pretrained]
        if Path(pretrained).is_dir():
            return cls._read_config(pretrained).to_dict()
        raise UserError(
            f'text_encoder.pretrained={pretrained!r} is neither a local folder nor one of {sorted(cls.hub_sizes)}; '
            'for another hub name give its sizes in `text_encoder.config`'
        )

    @classmethod
    def _read_config(cls, pretrained: str) -> PretrainedConfig:
        """The `config.json` of a local folder or of a hub name.

        Raises:
            FileNotFoundError: it does not exist.
            UserError: it describes a model of another family.
        """
        file = Path(pretrained) / 'config.json'
        if Path(pretrained).is_dir():
            if not file.is_file():
                raise FileNotFoundError(
                    f'{file}: no such file; `text_encoder.pretrained` must be a folder that transformers wrote, or a hub '
                    'name'
                )
            content = load_json(file, 'text_encoder.pretrained')
        else:
            try:
                content, _ = PretrainedConfig.get_config_dict(pretrained)
            except OSError as error:
                raise _not_found(pretrained, error) from error
        found = content.get('model_type') if isinstance(content, dict) else None
        if found != cls.model_type:
            raise UserError(
                f'{file} (config key `text_encoder.pretrained`): expected model_type {cls.model_type!r}, found {found!r}. '
                'Other models have other positions, special tokens or words, even where their weights have the same names: '
                f'the features would be wrong{_remedy(found)}'
            )
        return cls.config_class.from_dict(content)

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Maximum length of a sentence, including the special tokens at its ends."""

    @abstractmethod
    def position_ids(self, ids: Tensor) -> Tensor:
        """Positions of the tokens ``ids`` (M, L), as the family counts them; made on the CPU, so that the device need not be
        waited for."""

    @property
    def tokenizer(self) -> Callable[..., Any]:
        if self._tokenizer is None:
            source = self._tokenizer_source
            if isinstance(source, str):
                self._tokenizer = self._load_tokenizer(source)
            else:
                self._tokenizer = TASK_UTILS.build(source)
        assert self._tokenizer is not None
        return self._tokenizer

    @classmethod
    def _load_tokenizer(cls, source: str) -> PreTrainedTokenizerBase:
        cause: Exception | None = None
        try:
            tokenizer = cls.tokenizer_class.from_pretrained(source)
        except (
            Exception
        ) as error:  # transformers raises OSError, ValueError, TypeError, by version and by what is missing
            cause = error
        # transformers 5 makes an empty tokenizer if it cannot find the files.
        if cause is not None or len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise FileNotFoundError(
                f'the tokenizer {source!r} (config key `text_encoder.tokenizer`, else `text_encoder.pretrained`) can be neither '
                f'found locally nor downloaded; give a local folder with {cls.tokenizer_files}, e.g. what '
                f'`{_download(source)}` writes ({cause})'
            ) from cause
        return tokenizer

    def init_weights(self) -> None:
        """Reads ``pretrained``, or starts from random weights if it is None.

        Some files on the hub, RoBERTa's among them, have no pooler: it then stays random, which is logged.

        Raises:
            FileNotFoundError: the weights are not local and cannot be downloaded.
            UserError: they belong to another family, a weight other than the pooler is missing, there are
                weights of additional layers, or `config`, `config.json` and the weights have different sizes.
        """
        super().init_weights()
        if self.pretrained is None:
            self._init_from_scratch()
            return
        self._check_config(self.pretrained)
        try:
            loaded, report = self.model_class.from_pretrained(
                self.pretrained, config=self.encoder.config, output_loading_info=True, ignore_mismatched_sizes=False
            )
        except OSError as error:
            raise _not_found(self.pretrained, error) from error
        except RuntimeError as error:
            raise UserError(
                f'{self.pretrained!r} (config key `text_encoder.pretrained`): the weights have other sizes than '
                f'its config.json: {error}'
            ) from error
        missing = set(report['missing_keys'])
        pooler = {key for key in missing if key.startswith('pooler.')}
        if missing - pooler:
            raise UserError(
                f'{self.pretrained!r} (config key `text_encoder.pretrained`) lacks weights of {self.model_class.__name__}: '
                f'{listed(sorted(missing - pooler))}'
            )
        further = sorted(key for key in report['unexpected_keys'] if 'encoder.layer.' in key)
        if further:
            raise UserError(
                f'{self.pretrained!r} (config key `text_encoder.pretrained`): config.json says num_hidden_layers='
                f'{self.encoder.config.num_hidden_layers}, but there are weights of further layers: {listed(further)}'
            )
        self.encoder.load_state_dict(loaded.state_dict())
        self.encoder.requires_grad_(not self.frozen)
        print_log(
            f'{type(self).__name__}: weights of {self.pretrained}'
            + (', which hold no pooler: the sentence feature starts from random weights' if pooler else ''),
            logger='current',
        )

    def _check_config(self, pretrained: str) -> None:
        """Compares the encoder with ``config.json``."""
        own, theirs = self.encoder.config, self._read_config(pretrained)
        for key in _ARCHITECTURE:
            expected, found = getattr(theirs, key), getattr(own, key)
            if expected != found:
                raise UserError(
                    f'{Path(pretrained) / "config.json"} (config key `text_encoder.pretrained`) has {key}={expected!r}, but '
                    f'`text_encoder.config` gives {key}={found!r}: expected the same; leave `text_encoder.config` out to '
                    'take the sizes of `text_encoder.pretrained`'
                )

    def _init_from_scratch(self) -> None:
        """Initializes the weights so that sentences differ from the first step on.

        The usual initial standard deviation of 0.02 in all tables and matrices is meant for 768 channels and
        pre-training: position and type weigh as much as the word, and words hardly influence each other or the pooled
        first token, so that the features of sentences that differ in a word agree to four digits.
        """
        for name, module in self.encoder.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=1.0 if name.endswith('word_embeddings') else 0.1)

    def train(self, mode: bool = True) -> 'TransformerTextEncoder':
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """
        Returns:
            Ids (M, L) int64, and (M, L) bool, True for padding; on the CPU.

        Raises:
            ValueError: a sentence is empty or longer than `max_tokens`; the message quotes it.
        """
        for text in texts:
            if not text.strip():
                raise UserError(f'empty sentence {text!r}: expected the words that name an object')
        ids = self.tokenizer(list(texts))['input_ids']
        for text, sentence_ids in zip(texts, ids, strict=True):
            if len(sentence_ids) > self.max_tokens:
                raise UserError(
                    f'sentence of {len(sentence_ids)} tokens; the text encoder takes at most {self.max_tokens} '
                    f'(`text_encoder.config.max_position_embeddings`): {text!r}'
                )
            if max(sentence_ids) >= self.encoder.config.vocab_size:
                raise UserError(
                    f"the tokenizer gave id {max(sentence_ids)} for {text!r}, beyond the text encoder's "
                    f'vocab_size {self.encoder.config.vocab_size} (`text_encoder.config.vocab_size`)'
                )
        longest = max(map(len, ids))
        pad_id = self.encoder.config.pad_token_id
        padded = torch.tensor([row + [pad_id] * (longest - len(row)) for row in ids])
        lengths = torch.tensor([len(row) for row in ids])
        return padded, torch.arange(longest) >= lengths[:, None]

    @staticmethod
    def _attention_mask(pad_mask: Tensor | None) -> Tensor | None:
        """The attention mask; given a 2-D one, transformers 5 checks on the device whether it masks anything."""
        if pad_mask is None:
            return None
        if digit_version(transformers.__version__) < digit_version('5.0'):
            return (~pad_mask).long()
        added = torch.zeros_like(pad_mask, dtype=torch.float32).masked_fill(pad_mask, torch.finfo(torch.float32).min)
        return added[:, None, None].expand(-1, 1, pad_mask.shape[1], -1)

    def forward(self, texts: Sequence[str]) -> TextFeatures:
        """
        Args:
            texts: M sentences.

        Returns:
            Words (M, L, C), pad mask (M, L) or None, sentence (M, C); the special tokens at the ends count as words.
        """
        ids, pad_mask = self.tokenize(texts)
        device = self.resizer[0].weight.device
        mask = to_device(pad_mask, device) if pad_mask.any() else None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            encoded = self.encoder(
                input_ids=to_device(ids, device),
                position_ids=to_device(self.position_ids(ids), device),
                attention_mask=self._attention_mask(mask),
            )
        # One product for the words and the sentence, appended as one more word.
        resized = self.resizer(torch.cat([encoded.last_hidden_state, encoded.pooler_output[:, None]], 1))
        return TextFeatures(words=resized[:, :-1], pad_mask=mask, sentence=resized[:, -1])


def _remedy(model_type: str | None) -> str:
    types = {family.model_type: family.__name__ for family in TransformerTextEncoder.__subclasses__()}
    return f'; set text_encoder.type={types[model_type]!r}' if model_type in types else ''
