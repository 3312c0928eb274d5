import string

import pytest
from transformers import BertTokenizer


@pytest.fixture(scope="session")
def tokenizer() -> BertTokenizer:
    """WordPiece over a handful of words; digits are one token each, so lengths can be counted by hand."""
    words = ["the", "a", "ship", "vehicle", "storagetank", "number", "on", "left", "in", "parking", "area", "gray"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *string.digits]
    tokens += [f"##{digit}" for digit in string.digits]
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)})
