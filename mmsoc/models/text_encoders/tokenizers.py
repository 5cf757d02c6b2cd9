import re
import zlib
from collections.abc import Sequence

from mmsoc.registry import TASK_UTILS
from mmsoc.utils.errors import UserError


@TASK_UTILS.register_module()
class HashTokenizer:
    """Maps words to ids by hashing: a tokenizer for text encoders trained from scratch.

    It needs no vocabulary file and no corpus, accepts any sentence, and gives the same ids on every machine. Two words
    share an id with probability 1 / vocab_size.

    Args:
        vocab_size: number of ids; 0 to 3 are RoBERTa's ``<s>``, ``<pad>``, ``</s>``, ``<unk>``.
    """

    bos, eos, num_special = 0, 2, 4

    def __init__(self, *, vocab_size: int = 8192) -> None:
        if vocab_size <= self.num_special:
            raise UserError(f'HashTokenizer: vocab_size must be above {self.num_special}, found {vocab_size}')
        self.vocab_size = vocab_size

    def __call__(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        """
        Returns:
            ``input_ids``, per sentence ``<s> word ... </s>``, with lower-case words and separate punctuation.
        """
        buckets = self.vocab_size - self.num_special
        return dict(
            input_ids=[
                [
                    self.bos,
                    *(
                        self.num_special + zlib.crc32(word.encode()) % buckets
                        for word in re.findall(r'\w+|[^\w\s]', text.lower())
                    ),
                    self.eos,
                ]
                for text in texts
            ]
        )
