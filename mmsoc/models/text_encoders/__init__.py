from .roberta import RobertaTextEncoder
from .tokenizers import HashTokenizer

__all__ = ['HashTokenizer', 'RobertaTextEncoder']
