from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel, BertTokenizerFast

from mmsoc.registry import MODELS

from .transformer import TransformerTextEncoder

_BASE: dict[str, Any] = dict(
    vocab_size=30522,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=512,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
    pad_token_id=0,
)
_MINI_LM = dict(_BASE, hidden_size=384, num_hidden_layers=6, intermediate_size=1536)


@MODELS.register_module()
class BertTextEncoder(TransformerTextEncoder):
    """BERT, or a model of its form such as MiniLM, in place of RoBERTa; see `TransformerTextEncoder`.

    The sentence feature is BERT's pooled ``[CLS]``, also for MiniLM, whose own sentence embedding is a mean over the words.
    """

    model_type = 'bert'
    model_class = BertModel
    config_class = BertConfig
    tokenizer_class = BertTokenizerFast
    tokenizer_files = 'vocab.txt'
    base_sizes = _BASE
    hub_sizes = {
        'bert-base-uncased': _BASE,
        'google-bert/bert-base-uncased': _BASE,
        'sentence-transformers/all-MiniLM-L6-v2': _MINI_LM,
    }

    def __init__(self, *, pretrained: str | None = 'bert-base-uncased', **kwargs: Any) -> None:
        super().__init__(pretrained=pretrained, **kwargs)

    @property
    def max_tokens(self) -> int:
        """Maximum length of a sentence, including ``[CLS]`` and ``[SEP]``."""
        return self.encoder.config.max_position_embeddings

    def position_ids(self, ids: Tensor) -> Tensor:
        return torch.arange(ids.shape[1]).expand_as(ids)
