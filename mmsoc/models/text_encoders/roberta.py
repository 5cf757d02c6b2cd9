from typing import Any

from torch import Tensor
from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

from mmsoc.registry import MODELS

from .transformer import TransformerTextEncoder

_BASE: dict[str, Any] = dict(
    vocab_size=50265,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=514,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
)
_LARGE = dict(_BASE, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
_DISTILLED = dict(_BASE, num_hidden_layers=6)


@MODELS.register_module()
class RobertaTextEncoder(TransformerTextEncoder):
    """RoBERTa, the paper's text encoder, or DistilRoBERTa; see `TransformerTextEncoder`."""

    model_type = 'roberta'
    model_class = RobertaModel
    config_class = RobertaConfig
    tokenizer_class = RobertaTokenizerFast
    tokenizer_files = 'vocab.json and merges.txt'
    base_sizes = _BASE
    hub_sizes = {
        'roberta-base': _BASE,
        'FacebookAI/roberta-base': _BASE,
        'roberta-large': _LARGE,
        'FacebookAI/roberta-large': _LARGE,
        'distilroberta-base': _DISTILLED,
        'distilbert/distilroberta-base': _DISTILLED,
    }

    def __init__(self, *, pretrained: str | None = 'roberta-base', **kwargs: Any) -> None:
        super().__init__(pretrained=pretrained, **kwargs)

    @property
    def max_tokens(self) -> int:
        """Maximum length of a sentence, including ``<s>`` and ``</s>``."""
        # Positions are counted from pad_token_id + 1.
        return self.encoder.config.max_position_embeddings - self.encoder.config.pad_token_id - 1

    def position_ids(self, ids: Tensor) -> Tensor:
        pad_id = self.encoder.config.pad_token_id
        present = ids != pad_id
        return present.cumsum(1) * present + pad_id
