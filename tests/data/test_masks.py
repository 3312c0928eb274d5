import json
import pickle
import timeit
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from layouts import box_mask, rle
from s4eca.data.masks import (
    AnnotationFile,
    EmptyMask,
    FileMask,
    RleMask,
    StoredMask,
    encode_mask,
    image_size,
    mask_fingerprint,
)
from s4eca.errors import S4ecaError


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10_000), st.floats(0, 1), st.sampled_from([1, 23]))
def test_rle_round_trip(height, width, seed, share, scale):
    mask = np.random.default_rng(seed).random((height, width)) < share
    mask = np.kron(mask, np.ones((scale, scale), dtype=bool))  # long runs use several characters
    assert np.array_equal(RleMask([rle(mask)]).decode(), mask)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10_000), st.floats(0, 1))
def test_decoding_agrees_with_pycocotools(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    encoded = rle(mask)
    decoded = RleMask([encoded]).decode()
    assert decoded.dtype == bool
    assert decoded.flags.c_contiguous
    assert np.array_equal(decoded, coco.decode(encoded) == 1)
    assert encode_mask(decoded) == encode_mask(np.asfortranarray(decoded)) == encoded
    assert RleMask([encoded]).covers() == (coco.area(encoded) > 0)


@pytest.mark.slow
def test_one_region_is_faster_than_pycocotools():
    """Both on a mask of RRSIS-D's size with many runs; the sum over layers that was here before took longer still."""
    mask = np.random.default_rng(0).random((100, 100)) < 0.1
    encoded = rle(np.kron(mask, np.ones((8, 8), dtype=bool)))
    tasks = (RleMask([encoded]).decode, lambda: coco.decode(encoded))
    # in turns, so that whatever else the machine does falls on both
    turns = [[timeit.timeit(task, number=5) for task in tasks] for _ in range(20)]
    ours, theirs = (min(times) for times in zip(*turns, strict=True))
    assert ours < theirs


def test_counts_as_bytes_and_as_run_lengths():
    mask = box_mask(5)
    encoded = rle(mask)
    assert np.array_equal(RleMask([{**encoded, "counts": encoded["counts"].encode()}]).decode(), mask)
    # column by column: two zeros, one one, three zeros
    runs = RleMask([{"size": [2, 3], "counts": [2, 1, 3]}]).decode()
    assert runs.tolist() == [[False, True, False], [False, False, False]]


def test_overlapping_regions_are_united():
    first, second = box_mask(0), box_mask(3)
    assert (first & second).any()  # the pixels that "== 1" would lose
    assert np.array_equal(RleMask([rle(first), rle(second)]).decode(), first | second)


def test_real_empty_mask_of_test_image_00413():
    mask = RleMask([{"size": [800, 800], "counts": "PPac0"}]).decode()
    assert mask.shape == (800, 800)
    assert not mask.any()


def test_polygons():
    corners = [4.0, 3.0, 20.0, 3.0, 20.0, 12.0, 4.0, 12.0]
    mask = RleMask([corners], size=(24, 32)).decode()
    canvas = Image.new("1", (32, 24))
    ImageDraw.Draw(canvas).polygon([(4, 3), (19, 3), (19, 11), (4, 11)], fill=1)
    assert np.array_equal(mask, np.asarray(canvas))


def test_two_polygons_are_united():
    square, other = [0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0], [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]
    mask = RleMask([square, other], size=(8, 8)).decode()
    assert mask.sum() == 16 + 16 - 4


GOOD = rle(box_mask(1))


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [None],
        [{"size": [24, 32]}],
        [{"size": [24, 33], "counts": GOOD["counts"]}],
        [{"size": [24, 32], "counts": GOOD["counts"][:-1]}],
        [{"size": [24, 32], "counts": "PPac0"}],
        [{"size": [24, 32], "counts": ""}],
        [{"size": [24, 32], "counts": "\x10\x10"}],
        [{"size": [24, 32], "counts": "o" * 40}],
        [{"size": [24, 32], "counts": 5}],
        [{"size": [24, 32], "counts": []}],
        [{"size": [24, 32], "counts": [0.5, 767.5]}],
        [{"size": [24, 32], "counts": [-1, 769]}],
        [{"size": [24], "counts": GOOD["counts"]}],
        [{"size": [0, 0], "counts": [0]}],
        [GOOD, rle(np.ones((3, 3), dtype=bool))],
        [[1.0, 2.0, 3.0]],
        [[1.0, 2.0, 3.0, 4.0, 5.0, "x"]],
    ],
)
def test_undecodable_rle_names_reference_and_file(parts):
    with pytest.raises(S4ecaError, match=r"reference 77 in .*instances\.json"):
        RleMask(parts, size=(24, 32), id="77", path=Path("instances.json")).decode()


def test_stored_mask(tmp_path):
    """Two objects in a file, found by their places in bytes; the first is Chinese."""
    first, second = ({"name": "飞机", "segmentation": [rle(box_mask(1))]}, {"segmentation": rle(box_mask(4))})
    pieces = [json.dumps(item, ensure_ascii=False).encode() for item in (first, second)]
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b", ".join(pieces) + b"]")
    file = AnnotationFile.of(path)
    spans = (1, len(pieces[0]), 1 + len(pieces[0]) + 2, len(pieces[1]))
    mask = StoredMask(file, spans, id="7")
    assert np.array_equal(StoredMask(file, spans[:2]).decode(), box_mask(1))
    assert np.array_equal(mask.decode(), box_mask(1) | box_mask(4))
    assert mask.covers()
    assert mask_fingerprint(mask) == mask_fingerprint(RleMask([rle(box_mask(1)), rle(box_mask(4))]))
    assert mask_fingerprint(mask) != mask_fingerprint(StoredMask(file, spans[2:]))
    assert np.array_equal(pickle.loads(pickle.dumps(mask)).decode(), mask.decode())


def test_empty_mask(tmp_path):
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(tmp_path / "a.png")
    assert image_size(tmp_path / "a.png") == (5, 9)
    mask = EmptyMask(tmp_path / "a.png").decode()
    assert (mask.shape, mask.dtype, mask.any()) == ((5, 9), bool, False)
    assert EmptyMask(tmp_path / "a.png", (2, 3)).decode().shape == (2, 3)
    absent = tmp_path / "absent.png"
    assert mask_fingerprint(EmptyMask(absent, (2, 3))) == mask_fingerprint(EmptyMask(tmp_path, (2, 3), "other"))
    assert mask_fingerprint(EmptyMask(absent, (2, 3))) != mask_fingerprint(EmptyMask(absent, (3, 2)))
    with pytest.raises(S4ecaError, match=r"absent\.png of reference 5 cannot be read"):
        EmptyMask(absent, id="5").decode()


def test_polygon_without_size():
    with pytest.raises(S4ecaError, match="height and width"):
        RleMask([[0.0, 0.0, 4.0, 0.0, 4.0, 4.0]], id="1").decode()


def test_pycocotools_alone_accepts_a_short_rle():
    """The reason for the check of the runs: without it, 400 pixels come out of a string that describes none."""
    assert coco.decode({"size": [20, 20], "counts": ""}).shape == (20, 20)


def test_file_mask_threshold(tmp_path):
    grey = np.array([[0, 49, 50], [51, 128, 255]], dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "1.tif", compression="packbits")
    assert FileMask(tmp_path / "1.tif").decode().tolist() == [[False, False, False], [True, True, True]]
    assert FileMask(tmp_path / "1.tif", threshold=0).decode().sum() == 5


def test_file_mask_of_other_modes(tmp_path):
    mask = box_mask(3)
    Image.fromarray(mask).save(tmp_path / "bilevel.png")
    Image.fromarray(mask.astype(np.uint16) * 60_000).save(tmp_path / "deep.tif")
    Image.fromarray(np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)).save(tmp_path / "rgb.png")
    for name in ("bilevel.png", "deep.tif", "rgb.png"):
        assert np.array_equal(FileMask(tmp_path / name).decode(), mask), name


def test_file_mask_falls_back_to_opencv(tmp_path, monkeypatch):
    Image.fromarray(box_mask(3).astype(np.uint8) * 255).save(tmp_path / "1.tif", compression="packbits")

    def refuse(*_, **__):
        raise OSError("decoder tiff_packbits not available")

    monkeypatch.setattr(Image, "open", refuse)
    assert np.array_equal(FileMask(tmp_path / "1.tif").decode(), box_mask(3))


@pytest.mark.parametrize("content", [None, b"", b"II*\x00 not a tiff"])
def test_undecodable_file_names_reference_and_file(tmp_path, content):
    path = tmp_path / "9.tif"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(S4ecaError, match=r"reference 9 in .*9\.tif"):
        FileMask(path, id="9").decode()


def test_fingerprint_follows_the_annotation(tmp_path):
    first, second = RleMask([rle(box_mask(1))]), RleMask([rle(box_mask(2))])
    assert mask_fingerprint(first) != mask_fingerprint(second)
    assert mask_fingerprint(first) == mask_fingerprint(RleMask([rle(box_mask(1))], id="other", path=tmp_path))
    path = tmp_path / "1.tif"
    path.write_bytes(b"12345")
    before = mask_fingerprint(FileMask(path))
    path.write_bytes(b"123456")
    assert mask_fingerprint(FileMask(path)) != before

    class Other:
        def __init__(self, mask):
            self.mask = mask

        def decode(self):
            return self.mask

    assert mask_fingerprint(Other(box_mask(1))) != mask_fingerprint(Other(box_mask(2)))
