"""Masks in image files: one object in every encoding that tools write, and what is no mask."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from s4eca.data.masks import FileMask, mask_fingerprint
from s4eca.errors import S4ecaError

MASK = np.zeros((64, 64), dtype=bool)
MASK[10:31, 20:41] = True  # 441 pixels


def pillow(values: np.ndarray, mode: str | None = None, palette: list[int] | None = None, **options):
    def write(path: Path) -> None:
        image = Image.fromarray(values)
        if palette is not None:
            image.putpalette(palette)
        image = image if mode is None else image.convert(mode)
        image.save(path, **options)

    return write


def tiff(values: np.ndarray, **options):
    return lambda path: tifffile.imwrite(path, values, **options)


def scaled(dtype, value, low=0) -> np.ndarray:
    return np.where(MASK, value, low).astype(dtype)


def colour(inside, outside=(0, 0, 0), dtype=np.uint8) -> np.ndarray:
    return np.where(MASK[..., None], inside, outside).astype(dtype)


INDICES = MASK.astype(np.uint8)
VOC = [0, 0, 0, 128, 0, 0]
READ = {
    "0/255": pillow(scaled(np.uint8, 255)),
    "0/1": pillow(scaled(np.uint8, 1)),
    "0/2": pillow(scaled(np.uint8, 2)),
    "0/254": pillow(scaled(np.uint8, 254)),
    "0/38": pillow(scaled(np.uint8, 38)),
    "1/2": pillow(scaled(np.uint8, 2, 1)),
    "bilevel": pillow(MASK),
    "group 4": pillow(MASK, compression="group4"),
    "int8": tiff(scaled(np.int8, 1)),
    "uint16 0/1": tiff(scaled(np.uint16, 1)),
    "uint16 0/65535": tiff(scaled(np.uint16, 65535)),
    "big-endian": tiff(scaled(np.uint16, 1), byteorder=">", compression="zlib"),
    "int16": tiff(scaled(np.int16, 1)),
    "int32": tiff(scaled(np.int32, 7)),
    "uint32": tiff(scaled(np.uint32, 1)),
    "float32 0/1": tiff(scaled(np.float32, 1)),
    "float32 0/0.5": tiff(scaled(np.float32, 0.5)),
    "float64": tiff(scaled(np.float64, 1)),
    "float16": tiff(scaled(np.float16, 1)),
    "bool": tiff(MASK, photometric="minisblack"),
    "palette black, red": pillow(INDICES, palette=VOC),
    "palette inverted": pillow(1 - INDICES, palette=[255, 255, 255, 0, 0, 0]),
    "palette of two colours": pillow(INDICES, palette=[120, 120, 120, 6, 230, 230]),
    "palette without colours": pillow(INDICES, palette=[0] * 768),
    "palette TIFF": tiff(
        INDICES, photometric="palette", colormap=np.pad([[0, 65535]] * 3, ((0, 0), (0, 254))).astype("u2")
    ),
    "grey as RGB": pillow(colour((255, 255, 255))),
    "0/1 as RGB": pillow(colour((1, 1, 1))),
    "red": pillow(colour((128, 0, 0))),
    "blue": pillow(colour((0, 0, 255))),
    "deep blue": tiff(colour((0, 0, 1), dtype=np.uint16), photometric="rgb"),
    "three bands": tiff(colour((1, 1, 1)), photometric="minisblack", planarconfig="contig"),
    "black on white, as LA": pillow(np.dstack([scaled(np.uint8, 255), np.full(MASK.shape, 255, np.uint8)])),
    "LA, alpha alone": pillow(np.dstack([np.zeros(MASK.shape, np.uint8), scaled(np.uint8, 255)])),
    "RGBA, alpha alone": pillow(np.dstack([colour((0, 0, 0)), scaled(np.uint8, 255)])),
    "white on transparent": pillow(np.dstack([colour((255, 255, 255)), scaled(np.uint8, 255)])),
    "red on opaque black": pillow(np.dstack([colour((255, 0, 0)), np.full(MASK.shape, 255, np.uint8)])),
    "white, unused alpha of 0": pillow(np.dstack([colour((255, 255, 255)), np.zeros(MASK.shape, np.uint8)])),
    "deep alpha": tiff(
        np.dstack([colour((0, 0, 0)), scaled(np.uint8, 255)]).astype(np.uint16), photometric="rgb", extrasamples=[2]
    ),
}


@pytest.mark.parametrize("name", READ)
def test_one_object_in_every_encoding(tmp_path, name):
    path = tmp_path / ("mask.tif" if READ[name].__qualname__.startswith("tiff") or name == "group 4" else "mask.png")
    READ[name](path)
    found = FileMask(path).decode()
    assert found.dtype == bool
    assert found.sum() == 441
    assert np.array_equal(found, MASK)


def test_black_that_lies_around_a_cut_out_is_background(tmp_path):
    """A footprint that is transparent outside, black inside, and holds a white object."""
    alpha = np.zeros(MASK.shape, np.uint8)
    alpha[5:60, 5:60] = 255
    Image.fromarray(np.dstack([colour((255, 255, 255)), alpha])).save(tmp_path / "a.png")
    assert np.array_equal(FileMask(tmp_path / "a.png").decode(), MASK)


@pytest.mark.parametrize(
    ("value", "dtype", "share"),
    [(0, "u1", 0), (255, "u1", 1), (1, "u1", 1), (0, "f4", 0), (1, "f4", 1), (65535, "u2", 1)],
)
def test_one_value_alone(tmp_path, value, dtype, share):
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 9), value, dtype))
    mask = FileMask(tmp_path / "a.tif").decode()
    assert mask.shape == (8, 9)
    assert mask.mean() == share


@pytest.mark.parametrize(
    ("palette", "index", "share"),
    [
        (VOC, 0, 0),
        (VOC, 1, 1),
        ([255, 255, 255, 0, 0, 0], 0, 1),
        ([255, 255, 255, 0, 0, 0], 1, 0),
    ],
)
def test_one_entry_of_a_palette_alone(tmp_path, palette, index, share):
    pillow(np.full((8, 9), index, np.uint8), palette=palette)(tmp_path / "a.png")
    assert FileMask(tmp_path / "a.png").decode().mean() == share


def test_nothing_visible_is_an_empty_mask(tmp_path):
    Image.fromarray(np.zeros((8, 9, 4), np.uint8)).save(tmp_path / "a.png")
    assert not FileMask(tmp_path / "a.png").decode().any()


def classes(*values: int) -> np.ndarray:
    """A map of square fields, one for each value, over the first one."""
    grid = np.full((64, 64), values[0], np.uint8)
    for place, value in enumerate(values[1:]):
        grid[4 + 10 * place : 12 + 10 * place, 8:40] = value
    return grid


def blurred() -> np.ndarray:
    """Probabilities that fall off slowly."""
    distance = np.hypot(*(np.mgrid[:64, :64] - 32))
    return (255 / (1 + np.exp((distance - 16) / 4))).astype(np.uint8)


REFUSED = {
    "classes": (pillow(classes(0, 1, 2, 3, 4, 5)), ["values 0, 1, 2, 3, 4, 5"]),
    "instances": (pillow(classes(0, 40, 90, 140)), ["values 0, 40, 90, 140"]),
    "three greys": (pillow(classes(0, 128, 255)), ["values 0, 128, 255"]),
    "an ignored border": (pillow(classes(0, 1, 255)), ["values 0, 1, 255"]),
    "probabilities": (pillow(blurred()), ["values 0,", "in all"]),
    "float probabilities": (tiff(blurred().astype(np.float32) / 255), ["in all"]),
    "sixteen bits": (tiff(classes(0, 1, 2).astype(np.uint16)), ["values 0, 1, 2"]),
    "not a number": (tiff(scaled(np.float32, 1, np.nan)), ["values 1, nan"]),
    "endless": (tiff(scaled(np.float32, np.inf)), ["values 0, inf"]),
    "negative": (tiff(scaled(np.int16, 1, -9999)), ["values -9999, 1"]),
    "one class alone": (pillow(np.full((8, 8), 7, np.uint8)), ["value 7 alone"]),
    "one colour alone": (pillow(np.full((8, 8, 3), (0, 0, 9), np.uint8)), ["colour (0, 0, 9)"]),
    "two colours": (pillow(colour((255, 0, 0), (0, 255, 0))), ["(0, 255, 0), (255, 0, 0)"]),
    "red on white": (pillow(colour((255, 0, 0), (255, 255, 255))), ["(255, 0, 0), (255, 255, 255)"]),
    "three colours": (
        pillow(np.dstack([classes(0, 9, 0), classes(0, 0, 9), classes(0, 0, 0)])),
        ["(0, 9, 0), (9, 0, 0)"],
    ),
    "palette of classes": (pillow(classes(0, 1, 2), palette=[0, 0, 0, 9, 0, 0, 0, 9, 0]), ["(0, 9, 0)"]),
    "white zeros": (tiff(MASK), ["zeros white", "zero as black"]),  # what tifffile makes of bool arrays
    "five bands": (tiff(np.zeros((8, 8, 5), np.uint8), photometric="minisblack", planarconfig="contig"), ["5 bands"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_not_two_values_is_refused_with_those_it_has(tmp_path, name):
    write, words = REFUSED[name]
    path = tmp_path / ("9.tif" if write.__qualname__.startswith("tiff") else "9.png")
    write(path)
    with pytest.raises(S4ecaError, match=r"mask of reference 9 in .*/9\.") as caught:
        FileMask(path, id="9").decode()
    for word in words:
        assert word in str(caught.value), word


def disc(side: int, scale: int) -> np.ndarray:
    """A disc and a narrow triangle, drawn larger and made smaller: anti-aliased grey."""
    image = Image.new("L", (side * scale, side * scale))
    draw = ImageDraw.Draw(image)
    draw.ellipse([scale * value for value in (10, 12, 40, 45)], fill=255)
    draw.polygon([scale * value for value in (50, 50, 60, 52, 55, 61)], fill=255)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def jpeg(quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(disc(128, 1)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


SOFT = {
    "anti-aliased": disc(64, 8),
    "drawn twice as large": disc(64, 2),
    "enlarged": np.asarray(Image.fromarray(disc(64, 1)).resize((192, 192), Image.Resampling.BILINEAR)),
    **{f"JPEG {quality}": jpeg(quality) for quality in (50, 75, 90, 95, 100)},
}


@pytest.mark.parametrize("name", SOFT)
def test_soft_edges_are_split_where_the_lineage_splits_them(tmp_path, name):
    """LAVT, LGCE and RMSIN read such masks by `> 50`."""
    grey = SOFT[name]
    assert len(np.unique(grey)) > 2
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(FileMask(tmp_path / "a.png").decode(), grey > 50)
    Image.fromarray(grey).convert("RGB").save(tmp_path / "b.png")
    assert np.array_equal(FileMask(tmp_path / "b.png").decode(), grey > 50)


def test_a_given_threshold_goes_before_the_values(tmp_path):
    grey = classes(0, 40, 90, 140)
    Image.fromarray(grey).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", grey.astype(np.uint16) * 100)
    assert np.array_equal(FileMask(tmp_path / "a.png", 50).decode(), grey > 50)
    assert np.array_equal(FileMask(tmp_path / "a.tif", 5000).decode(), grey > 50)


def test_masks_of_two_values_keep_the_fingerprint_that_older_checkpoints_hold(tmp_path):
    Image.fromarray(MASK).save(tmp_path / "a.png")
    size = (tmp_path / "a.png").stat().st_size
    assert mask_fingerprint(FileMask(tmp_path / "a.png")) == f"a.png:{size}:50"
    assert mask_fingerprint(FileMask(tmp_path / "a.png", 0)) == f"a.png:{size}:0"


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"]),
    values=st.lists(st.integers(0, 127), min_size=2, max_size=2, unique=True),
    shape=st.tuples(st.integers(1, 12), st.integers(2, 12)),
    seed=st.integers(0, 10**6),
)
def test_the_larger_of_two_values_is_the_object(tmp_path_factory, dtype, values, shape, seed):
    mask = np.random.default_rng(seed).random(shape) < 0.5
    mask.flat[:2] = [True, False]
    path = tmp_path_factory.getbasetemp() / "larger.tif"
    tifffile.imwrite(path, np.where(mask, max(values), min(values)).astype(dtype), photometric="minisblack")
    assert np.array_equal(FileMask(path).decode(), mask)
