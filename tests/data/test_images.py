"""Image files of every kind that users have: read as they are, or refused by what they are."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from layouts import picture, write_rrsis_d
from s4eca.data import RRSISDDataModule
from s4eca.data.dataset import ReferenceDataset
from s4eca.data.file_kinds import PixelError
from s4eca.data.images import image_size, open_image, read_image
from s4eca.data.masks import RleMask
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError

RGB = picture(0)
GREY = np.repeat(RGB[..., :1], 3, axis=2)
NEAR_INFRARED = picture(1)[..., :1]
FOUR = np.concatenate([RGB, NEAR_INFRARED], axis=2)
FIVE = np.concatenate([RGB, picture(1)[..., :2]], axis=2)
BANDS = {"photometric": "minisblack", "planarconfig": "contig"}
DEFLATE = {"compression": "zlib", "predictor": True}


def tiff(path: Path, values: np.ndarray, **options) -> Path:
    tifffile.imwrite(path, values, **options)
    return path


def png(path: Path, values: np.ndarray) -> Path:
    """Writes 16 bits per channel, RGB or RGBA."""
    assert cv2.imwrite(str(path), values[..., [2, 1, 0, 3][: values.shape[2]]])
    return path


def as_gdal_calls_it(path: Path, values: np.ndarray, compression: str) -> Path:
    """Writes three or four bands by libtiff, and calls them minisblack with undefined further bands."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF", compression=compression)
    content = bytearray(stream.getvalue())
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = file.pages.first.tags
        struct.pack_into("<H", content, tags["PhotometricInterpretation"].valueoffset, 1)
        if "ExtraSamples" in tags:
            struct.pack_into("<H", content, tags["ExtraSamples"].valueoffset, 0)
        else:  # in the place of a tag that nobody needs
            struct.pack_into("<HHIHH", content, tags["PlanarConfiguration"].offset, 338, 3, 2, 0, 0)
    path.write_bytes(content)
    return path


def refusal(path: Path, depth: int = 8) -> PixelError:
    with pytest.raises(PixelError) as caught:
        read_image(path, "7", depth)
    assert "reference 7" in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (RGB, BANDS, RGB),
        (RGB, BANDS | DEFLATE, RGB),
        (RGB, BANDS | {"tile": (16, 16), "bigtiff": True}, RGB),
        (FOUR, BANDS, RGB),
        (FOUR, BANDS | DEFLATE | {"tile": (16, 16), "bigtiff": True, "byteorder": ">"}, RGB),
        (np.moveaxis(RGB, 2, 0), {"photometric": "minisblack", "planarconfig": "separate"}, RGB),
        (np.moveaxis(FOUR, 2, 0), {"photometric": "minisblack", "planarconfig": "separate", **DEFLATE}, RGB),
        (np.moveaxis(RGB, 2, 0), {"photometric": "rgb", "planarconfig": "separate", "bigtiff": True}, RGB),
        (FOUR, {"photometric": "rgb", "extrasamples": ["unspecified"]}, RGB),
        (FOUR, {"photometric": "rgb", "extrasamples": ["unassalpha"]}, RGB),
        (FIVE, {"photometric": "rgb", "planarconfig": "contig"}, RGB),
        (RGB[..., :2], BANDS | {"extrasamples": ["unassalpha"]}, GREY),
        (RGB[..., 0], DEFLATE, GREY),
        ((RGB // 2).astype(np.int8), {"photometric": "rgb"}, RGB // 2),
        (np.stack([RGB, FOUR[..., 1:]]), {"photometric": "rgb"}, RGB),  # two pages: the first
    ],
)
def test_tiffs_of_eight_bits_are_read_whatever_they_call_their_bands(tmp_path, values, options, expected):
    path = tiff(tmp_path / "a.tif", values, **options)
    assert np.array_equal(read_image(path), expected)
    assert open_image(path).mode == "RGB"
    assert image_size(path) == RGB.shape[:2]


@pytest.mark.parametrize("compression", ["tiff_lzw", "zstd", "packbits"])
@pytest.mark.parametrize("values", [RGB, FOUR])
def test_compressions_of_bands_that_are_not_called_rgb(tmp_path, values, compression):
    path = as_gdal_calls_it(tmp_path / "a.tif", values, compression)
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(path)
    assert np.array_equal(read_image(path), RGB)
    assert image_size(path) == RGB.shape[:2]


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tga", "sgi", "webp", "jp2"])
def test_formats_of_eight_bits(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read_image(path), RGB)


DEEP = {
    "rgb16.png": lambda path: png(path, RGB.astype(np.uint16) * 16),
    "rgba16.png": lambda path: png(path, FOUR.astype(np.uint16) * 16),
    "rgb16.tif": lambda path: tiff(path, RGB.astype(np.uint16) * 16, photometric="rgb"),
    "big.tif": lambda path: tiff(path, RGB.astype(np.uint16) * 16, photometric="rgb", bigtiff=True, byteorder=">"),
    "rgba16.tif": lambda path: tiff(path, FOUR.astype(np.uint16) * 16, photometric="rgb"),
    "bands16.tif": lambda path: tiff(path, FOUR.astype(np.uint16) * 16, **BANDS, **DEFLATE),
    "int16.tif": lambda path: tiff(path, RGB.astype(np.int16) * 16, photometric="rgb"),
    "int32.tif": lambda path: tiff(path, RGB.astype(np.int32) * 16, photometric="rgb"),
    "lzw16.tif": lambda path: png(path, RGB.astype(np.uint16) * 16),  # OpenCV's compression of TIFFs
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_eight_bits_are_refused_or_taken_by_the_depth_that_is_set(tmp_path, name):
    """Twelve bits in use: values of 8 bits times 16."""
    path = DEEP[name](tmp_path / name)
    error = refusal(path)
    assert not error.damaged
    for word in ("int", "4,080", "8 bits", "gdal_translate -ot Byte -scale", "data.depth", "12 or more"):
        assert word in str(error), word
    assert np.array_equal(read_image(path, depth=12), RGB)
    assert np.array_equal(read_image(path, depth=16), RGB >> 4)
    assert "4,080" in refusal(path, depth=11).reason
    assert image_size(path) == RGB.shape[:2]


def test_deep_grey(tmp_path):
    deep = RGB[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a.png")
    tiff(tmp_path / "a.tif", deep)
    for name in ("a.png", "a.tif"):
        assert "1 band of uint16" in refusal(tmp_path / name).reason
        assert np.array_equal(read_image(tmp_path / name, depth=16), GREY)


def test_the_depth_leaves_images_of_eight_bits_alone(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    tiff(tmp_path / "a.tif", RGB, **BANDS)
    for name in ("a.png", "a.tif"):
        assert np.array_equal(read_image(tmp_path / name, depth=12), RGB)


def test_bytes_in_a_wider_type_need_no_scaling(tmp_path):
    path = tiff(tmp_path / "a.tif", RGB.astype(np.uint16), photometric="rgb")
    assert "gdal_translate -ot Byte IN OUT" in str(refusal(path))


def damaged_tail(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0x5A for byte in content[middle : middle + 200]) + content[middle + 200 :]


def jpeg(bits: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(3, 200, 200)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    content[content.index(b"\xff\xc0") + 4] = bits  # in the frame header
    return bytes(content)


def in_format(name: str, values: np.ndarray = RGB, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, name, **options)
    return stream.getvalue()


def in_tiff(values: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def lab() -> bytes:
    stream = io.BytesIO()
    Image.merge("LAB", Image.fromarray(RGB).split()).save(stream, "TIFF")
    return stream.getvalue()


def deep_jpeg2000() -> bytes:
    smooth = cv2.resize(picture(2), (96, 96)).astype(np.uint16) * 16
    return cv2.imencode(".jp2", smooth)[1].tobytes()


def not_numbers() -> np.ndarray:
    values = RGB.astype(np.float32)
    values[0, 0] = np.nan
    return values


WHOLE = {
    "float": (
        lambda: in_tiff((RGB / 255).astype(np.float32), photometric="rgb"),
        ["3 bands of float32", "0 to 1,"],
    ),
    "float64": (lambda: in_tiff(RGB.astype(np.float64), **BANDS), ["3 bands of float64", "0 to 255,"]),
    "nan": (lambda: in_tiff(not_numbers(), photometric="rgb"), ["float32", "0 to 255,"]),
    "negative": (lambda: in_tiff(RGB.astype(np.int16) - 5, photometric="rgb"), ["int16", "-5 to 250"]),
    "complex": (lambda: in_tiff(RGB[..., 0].astype(np.complex64)), ["complex64"]),
    "five": (lambda: in_tiff(FIVE, **BANDS), ["5 bands of uint8", "-b 1 -b 2 -b 3"]),
    "five deep": (lambda: in_tiff(FIVE.astype(np.uint16), **BANDS), ["5 bands of uint16"]),
    "five planar": (
        lambda: in_tiff(np.moveaxis(FIVE, 2, 0), photometric="minisblack", planarconfig="separate"),
        ["5 bands of uint8"],
    ),
    "two": (lambda: in_tiff(RGB[..., :2], **BANDS), ["2 bands of uint8"]),
    "miniswhite": (lambda: in_tiff(RGB[..., 0].astype(np.uint16), photometric="miniswhite"), ["MINISWHITE"]),
    "palette": (
        lambda: in_tiff(
            RGB[..., 0].astype(np.uint16), photometric="palette", colormap=np.zeros((3, 65536), dtype=np.uint16)
        ),
        ["uint16", "PALETTE"],
    ),
    "lab": (lab, ["TIFF", "LAB", "RGB"]),
    "ppm": (lambda: b"P6 32 24 4095\n" + RGB.astype(">u2").tobytes(), ["PPM", "more than 8 bits"]),
    "jpeg2000": (deep_jpeg2000, ["JPEG2000", "more than 8 bits"]),
    "jpeg": (lambda: jpeg(12), ["JPEG of 12 bits"]),
    "pdf": (lambda: b"%PDF-1.7 ...", ["a PDF", "convert"]),
    "zip": (lambda: b"PK\x03\x04...", ["a ZIP archive", "unpack"]),
    "numpy": (lambda: b"\x93NUMPY...", ["a NumPy array"]),
    "heic": (lambda: b"\0\0\0\x18ftypheic....", ["heic"]),
}

DAMAGED = {
    "empty": (lambda: b"", ["an empty file", "download"]),
    "zeros": (lambda: bytes(1000), ["zeros", "download"]),
    "html": (lambda: b"\n<!DOCTYPE html><html>404</html>", ["an HTML page", "download"]),
    "marked html": (lambda: b"\xef\xbb\xbf<html>", ["an HTML page"]),
    "cut directory": (lambda: in_format("TIFF", compression="tiff_lzw")[:-300], ["TIFF", "damaged", "whole copy"]),
    "lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ["Git LFS pointer", "git lfs pull"]),
    "text": (lambda: b"Not Found", ["a text ('Not Found')"]),
    "cut jpeg": (lambda: jpeg()[:4000], ["damaged JPEG", "truncated", "whole copy"]),
    "cut header": (lambda: jpeg()[:60], ["damaged JPEG", "whole copy"]),
    "cut png": (lambda: in_format("PNG")[:1500], ["damaged PNG", "whole copy"]),
    "cut tiff": (lambda: in_tiff(RGB, **BANDS)[:-900], ["breaks off", "whole copy"]),
    "cut rgb": (lambda: in_tiff(RGB, photometric="rgb")[:-900], ["TIFF", "whole copy"]),
    "deflate": (lambda: damaged_tail(in_tiff(FOUR, **BANDS, **DEFLATE)), ["damaged TIFF", "whole copy"]),
    "lzw": (lambda: damaged_tail(in_format("TIFF", compression="tiff_lzw")), ["damaged LZW", "whole copy"]),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_whole_and_not_read_is_named_and_not_called_damaged(tmp_path, name):
    make, words = WHOLE[name]
    path = tmp_path / "3.tif"
    path.write_bytes(make())
    error = refusal(path)
    for word in words:
        assert word in str(error), word
    assert not error.damaged
    assert "whole copy" not in str(error)
    assert "damaged" not in str(error)


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_or_something_else_is_named(tmp_path, name):
    make, words = DAMAGED[name]
    path = tmp_path / "3.jpg"
    path.write_bytes(make())
    error = refusal(path)
    for word in words:
        assert word in str(error), word
    assert error.damaged


def test_a_missing_file_and_what_is_there_instead(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "3.PNG")
    assert "no such file, only 3.PNG" in str(refusal(tmp_path / "3.jpg"))
    assert f"no such file, and {tmp_path} holds" in str(refusal(tmp_path / "none" / "3.jpg"))
    assert "directory" in str(refusal(tmp_path)).lower()


def test_too_many_pixels(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "cut it into tiles" in str(refusal(tmp_path / "a.png"))


def test_too_many_pixels_that_only_tifffile_reads(tmp_path):
    """60,000 x 60,000 x 4 of 16 bits, 27 GB, in a file of a few kB: they are never allocated."""
    content = bytearray(in_tiff(np.zeros((64, 64, 4), np.uint16), **BANDS, **DEFLATE))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        for name in ("ImageWidth", "ImageLength"):
            tag = file.pages.first.tags[name]
            struct.pack_into(file.byteorder + {3: "H", 4: "I"}[tag.dtype], content, tag.valueoffset, 60_000)
    (tmp_path / "a.tif").write_bytes(content)
    error = refusal(tmp_path / "a.tif")
    assert "60,000 x 60,000" in str(error)
    assert "cut it into tiles" in str(error)


def test_a_link_that_leads_nowhere(tmp_path):
    (tmp_path / "a.png").symlink_to("gone/b.png")
    error = str(refusal(tmp_path / "a.png"))
    assert "a link to gone/b.png" in error
    assert "only a.png" not in error


def test_a_worker_passes_the_sentence_on():
    """PyTorch's loaders make a worker's error anew from its text."""
    assert str(PixelError("The image a.jpg cannot be decoded.")) == "The image a.jpg cannot be decoded."


def test_samples_and_their_keys_follow_the_depth(tmp_path):
    path = tiff(tmp_path / "a.tif", RGB.astype(np.uint16) * 16, photometric="rgb")
    mask = RleMask([{"size": list(RGB.shape[:2]), "counts": [4, 8, RGB[..., 0].size - 12]}])
    item = Reference("7", path, "it", "train", None, mask)
    sets = {depth: ReferenceDataset([item], 16, depth=depth, keyed=True) for depth in (8, 12, 16)}
    with pytest.raises(S4ecaError, match=r"reference 7.*uint16"):
        sets[8][0]
    expected = np.array(Image.fromarray(RGB).resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(sets[12][0].image.permute(1, 2, 0).numpy(), expected)
    assert sets[16][0].image.max() <= 16
    for key in ("image_key", "cache_key"):
        assert len({getattr(dataset, key)(item) for dataset in sets.values()}) == 3


def test_the_depth_is_checked_and_identifies_the_data(tmp_path):
    write_rrsis_d(tmp_path)
    prints = {depth: RRSISDDataModule(root=tmp_path, depth=depth).fingerprint() for depth in (8, 12, 16)}
    assert len({found["train"]["sha256"] for found in prints.values()}) == 3
    assert RRSISDDataModule(root=tmp_path, depth=12).dataset("val").depth == 12
    for depth in (7, 17, 12.0, "full", True):
        with pytest.raises(S4ecaError, match=rf"data\.depth={depth} .*up to 16"):
            RRSISDDataModule(root=tmp_path, depth=depth)
