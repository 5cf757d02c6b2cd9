from .bert import BertTextEncoder
from .roberta import RobertaTextEncoder
from .tokenizers import HashTokenizer
from .transformer import TransformerTextEncoder

__all__ = ['BertTextEncoder', 'HashTokenizer', 'RobertaTextEncoder', 'TransformerTextEncoder']
