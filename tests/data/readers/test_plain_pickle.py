import contextlib
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4eca.data.readers import plain_pickle
from s4eca.data.readers.plain_pickle import load_plain_pickle
from s4eca.data.readers.refer_files import read_refer_entries
from s4eca.errors import S4ecaError

VALUES = {
    "ref_id": np.int64(2**40),
    "small": np.uint8(200),
    "swapped": np.dtype(">i4").type(-9),
    "share": np.float32(1.5),
    "marked": np.bool_(True),
    "split": np.str_("train"),
    "ann_id": np.array([3, 4], ">i4"),
    "none": np.array([], np.int64),
    "single": np.array(7),
    "columns": np.array([[1, 2], [3, 4]], order="F"),
    "plain": ["左", None, 2**70, {"a": (1.5, b"x")}],
}
PLAIN = {
    **{"ref_id": 2**40, "small": 200, "swapped": -9, "share": 1.5, "marked": True, "split": "train", "ann_id": [3, 4]},
    **{"none": [], "single": [7], "columns": [[1, 2], [3, 4]], "plain": VALUES["plain"]},
}
KINDS = {"ref_id": int, "small": int, "swapped": int, "share": float, "marked": bool, "split": str}


def load(tmp_path, content):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(content)
    return load_plain_pickle(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("module", [b"numpy._core.", b"numpy.core."])
def test_numbers_of_numpy_become_pythons(tmp_path, protocol, module):
    content = pickle.dumps(VALUES, protocol)
    if protocol < 4:  # NumPy 1 and 2 call their module differently; later protocols count the letters
        content = content.replace(b"numpy._core.", module)
    found = load(tmp_path, content)
    assert found == PLAIN
    assert {key: type(found[key]) for key in KINDS} == KINDS
    assert {type(value) for value in found["ann_id"]} == {int}


def test_refs_with_numpy_numbers(tmp_path):
    sentence = {"raw": "\ufeffa car", "sent": "a car"}
    number = np.int64(5)
    ref = {"ref_id": number, "ann_id": np.array([5, 6]), "image_id": number, "split": "val", "sentences": [sentence]}
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps([ref], protocol=2))
    (entry,) = read_refer_entries(path)
    assert (entry.ref_id, entry.ann_id, entry.image_id, entry.sentences) == (5, (5, 6), 5, ("a car",))
    assert type(entry.ref_id) is int


def test_strings_of_python_2_are_utf8_and_others_are_refused(tmp_path):
    raw = "船".encode()
    assert load(tmp_path, b"U" + bytes([len(raw)]) + raw + b".") == "船"
    path = tmp_path / "refs.p"
    content = pickle.dumps(
        [{"ref_id": 1, "ann_id": 1, "image_id": 1, "split": "val", "sentences": [{"raw": "HERE"}]}], 2
    )
    path.write_bytes(content.replace(b"X\x04\0\0\0HERE", b"U\x04" + "船只".encode("gbk")))
    with pytest.raises(S4ecaError, match=r"Entry 0 of .* not UTF-8"):
        read_refer_entries(path)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (OrderedDict(a=1), r"collections\.OrderedDict"),
        (np.ma.array([1]), r"numpy\.ma\.core"),
        (np.complex64(1), "type c8"),
        (np.array([{}], object), "type O8"),
        (np.datetime64("2020-01-01"), "type M8"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_other_things_are_named_with_a_remedy_that_works(tmp_path, value, named, protocol):
    with pytest.raises(S4ecaError, match=rf"refs\(unc\)\.p .*{named}.*tolist.*JSON") as error:
        load(tmp_path, pickle.dumps([value], protocol))
    assert "download" not in str(error.value)


HARMFUL = [
    b"cos\nmkdir\n(Vharm\ntR.",
    b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x04harm\x85R.",
    b"(ios\nmkdir\nVharm\n.",
    b"cbuiltins\neval\n(V__import__('os').mkdir('harm')\ntR.",
    # through the names that are known: into their modules, onto their attributes, and as arguments
    b"cnumpy.core.os\nmkdir\n(Vharm\ntR.",
    b"cnumpy.core.multiarray.os\nmkdir\n(Vharm\ntR.",
    b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x13scalar.__globals__.x\x93.",
    b"cnumpy\ndtype.__init__.__globals__\n.",
    b"cnumpy.core.multiarray\nscalar\n(cos\nmkdir\nVharm\ntR.",
    b"cnumpy\ndtype\n}V_make\ncos\nmkdir\nsb(Vharm\ntR.",
    # to change what stands for a name
    b"cnumpy\ndtype\n}V_make\nI1\nsb.",
    b"cnumpy\ndtype\n(N}V_make\nI1\nstb.",
    b"cnumpy\ndtype\n(N}V__class__\nI1\nstb.",
    b"\x80\x02cnumpy\ndtype\n)\x81.",
    b"cnumpy\ndtype\n(VO8\ntR.",
    b"c_codecs\nencode\n(Va\nVunicode_escape\ntR.",
    # to fill the memory
    b"c__builtin__\nbytes\n(I100000000000\ntR.",
    b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(Vi8\ntRI100000000000\ntR.",
    b"\x82\x01.",
    b"Vx\nQ.",
]


@pytest.mark.parametrize("content", HARMFUL)
def test_harmful_pickles_are_refused_and_never_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    before = {name: vars(part).copy() for name, part in vars(plain_pickle).items() if isinstance(part, type)}
    with pytest.raises(S4ecaError):
        load(tmp_path, content)
    assert not (tmp_path / "harm").exists()
    assert {name: dict(vars(getattr(plain_pickle, name))) for name in before} == {k: dict(v) for k, v in before.items()}
    assert load(tmp_path, pickle.dumps(np.int64(3), 2)) == 3


@settings(max_examples=200)
@given(st.data())
def test_changed_bytes_give_plain_values_or_an_error(tmp_path_factory, data):
    content = bytearray(pickle.dumps([np.int64(3), {"a": np.array([1.5])}], data.draw(st.sampled_from([2, 4]))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(S4ecaError):
        load(tmp_path_factory.getbasetemp(), bytes(content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"ref_id": 1}]', r"it is JSON.*\.json"),
        (b"<html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0\5\x16\7\0\2", "macOS"),
        (pickle.dumps([1, 2])[:-3], "whole copy"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path, content, words):
    with pytest.raises(S4ecaError, match=rf"cannot be read as a pickle.*{words}"):
        load(tmp_path, content)
