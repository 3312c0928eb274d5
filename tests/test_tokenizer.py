import pytest

from s4eca.errors import S4ecaError
from s4eca.tokenizer import aerial_tokenizer, load_tokenizer, tokenizer_files, tokenizer_from_files

SENTENCES = ["The gray ship on the lower left", "A windmill is above the chimney", "ÉTANG no. 5"]


def test_files_rebuild_the_same_tokenizer():
    tokenizer = aerial_tokenizer()
    files = tokenizer_files(tokenizer)
    assert all(isinstance(text, str) for text in files.values())
    again = tokenizer_from_files(files)
    settings = {"padding": "max_length", "max_length": 10, "truncation": True}
    assert again(SENTENCES, **settings).input_ids == tokenizer(SENTENCES, **settings).input_ids


def test_files_cannot_leave_their_folder(tmp_path):
    files = tokenizer_files(aerial_tokenizer())
    tokenizer_from_files({**files, str(tmp_path / "planted"): "x", "../planted": "x"})
    assert not (tmp_path / "planted").exists()
    assert not (tmp_path.parent / "planted").exists()


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(S4ecaError, match=r"could not be loaded.*text\.tokenizer=PATH"):
        load_tokenizer(str(tmp_path))
