import string
import sys
from pathlib import Path

import pytest
from transformers import BertTokenizer

# pytest's importlib mode leaves sys.path alone, and the tests share layouts.py
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tokenizer() -> BertTokenizer:
    """WordPiece over a handful of words; digits are one token each, so lengths can be counted by hand."""
    words = ["the", "a", "ship", "vehicle", "storagetank", "number", "on", "left", "in", "parking", "area", "gray"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *string.digits]
    tokens += [f"##{digit}" for digit in string.digits]
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)})
