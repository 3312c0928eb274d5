import json
import zipfile

import numpy as np
import pytest
from pycocotools import mask as coco

from s4eca.dgl_rsis.parts import View
from s4eca.dgl_rsis.proposals.oracle import Oracle
from s4eca.dgl_rsis.proposals.precomputed import Precomputed
from s4eca.dgl_rsis.proposals.union import Union
from s4eca.dgl_rsis.stages import Stages
from s4eca.errors import S4ecaError


def view(height=20, width=30):
    return View(np.zeros((height, width, 3), np.uint8), "key", "P1")


def two_masks():
    masks = np.zeros((3, 20, 30), np.uint8)
    masks[0, 2:8, 3:9] = 1
    masks[1, 10:18, 10:25] = 255
    return masks  # the third is empty


def test_npz_and_json_give_the_same(tmp_path):
    masks, scores = two_masks(), np.array([0.2, 0.7, 0.9])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    np.savez(tmp_path / "a" / "P1.npz", masks=masks, scores=scores)
    rows = []
    for mask, score in zip(masks, scores, strict=True):
        rle = coco.encode(np.asfortranarray((mask > 0).astype(np.uint8)))
        rows.append({"size": rle["size"], "counts": rle["counts"].decode(), "score": score})
    (tmp_path / "b" / "P1.json").write_text(json.dumps(rows), encoding="utf-8-sig")
    for folder in ("a", "b"):
        found = Precomputed(str(tmp_path / folder)).propose(view())
        np.testing.assert_array_equal(found.masks(), masks[[1, 0]] > 0)
        np.testing.assert_allclose(found.scores, [0.7, 0.2], rtol=1e-6)


def test_other_sizes_are_fitted(tmp_path):
    np.savez(tmp_path / "P1.npz", masks=two_masks())
    found = Precomputed(str(tmp_path)).propose(view(40, 60))
    np.testing.assert_array_equal(found.mask(0), np.kron(two_masks()[0], np.ones((2, 2))) > 0)


def test_inputs_follow_the_content(tmp_path):
    proposer = Precomputed(str(tmp_path))
    np.savez(tmp_path / "P1.npz", masks=two_masks())
    before = proposer.inputs(view())
    assert proposer.inputs(view()) == before
    np.savez(tmp_path / "P1.npz", masks=two_masks()[:1])
    assert proposer.inputs(view()) != before


@pytest.mark.parametrize(
    "content",
    [
        {"masks": np.zeros((1, 20, 30))},
        {"other": np.zeros(1)},
        {"masks": np.array([{}], dtype=object)},
        {"masks": two_masks(), "scores": np.ones(2)},
        {"masks": two_masks(), "scores": np.full(3, np.nan)},
    ],
)
def test_bad_files_are_named(tmp_path, content):
    np.savez(tmp_path / "P1.npz", **content)
    with pytest.raises(S4ecaError, match=r"P1\.npz cannot be read"):
        Precomputed(str(tmp_path)).propose(view())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"size": [1000000, 1000000], "counts": [1000000000000]}]', "pixels that an image may have"),
        ('[{"size": [0, 0], "counts": [0]}]', "whole pixels"),
        ('[{"size": [20, 30], "counts": [601, -1]}]', "whole numbers"),
        ('[{"size": [20, 30], "counts": "~"}]', "complete RLE"),
        ('[{"size": ["20", 30], "counts": [600]}]', "whole pixels"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_numbers_that_are_no_masks(tmp_path, text, words):
    (tmp_path / "P1.json").write_text(text)
    with pytest.raises(S4ecaError, match=rf"P1\.json cannot be read .*{words}|P1\.json {words}"):
        Precomputed(str(tmp_path)).propose(view())


def test_a_header_that_promises_too_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "P1.npz", "w") as archive, archive.open("masks.npy", "w") as stream:
        content = {"descr": "|b1", "fortran_order": False, "shape": (1, 10**6, 10**7)}
        np.lib.format.write_array_header_1_0(stream, content)
    with pytest.raises(S4ecaError, match=r"P1\.npz cannot be read"):
        Precomputed(str(tmp_path)).propose(view())


def test_missing_files_are_named(tmp_path):
    with pytest.raises(S4ecaError, match=r"proposer\.folder"):
        Precomputed(str(tmp_path / "none"))
    with pytest.raises(S4ecaError, match=r"P1\.npz nor P1\.json"):
        Precomputed(str(tmp_path)).propose(view())
    (tmp_path / "P1.json").write_text("{")
    with pytest.raises(S4ecaError, match="cannot be read"):
        Precomputed(str(tmp_path)).propose(view())


@pytest.mark.parametrize("around", [lambda part: part, Oracle, lambda part: Union([part])])
def test_a_changed_file_is_not_served_from_the_cache(around, tmp_path):
    (tmp_path / "masks").mkdir()
    proposer = around(Precomputed(str(tmp_path / "masks")))
    seen = View(np.zeros((20, 30, 3), np.uint8), "key", "P1", np.zeros((20, 30), bool))
    found = []
    for count in (1, 2):
        np.savez(tmp_path / "masks" / "P1.npz", masks=two_masks()[:count])
        found.append(len(Stages(proposer, cache=tmp_path / "cache").proposals(seen)))
    assert found == [1, 2]
