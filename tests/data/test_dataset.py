import os
import shutil
import time
import warnings
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from layouts import HEIGHT, WIDTH, box_mask, picture, rle
from s4eca.cache import DiskCache
from s4eca.data import dataset as dataset_module
from s4eca.data.augmentation.transforms import Augmentation
from s4eca.data.dataset import Collate, ReferenceDataset, token_lengths
from s4eca.data.images import open_image, read_image
from s4eca.data.masks import FileMask, RleMask
from s4eca.data.references import Batch, Reference
from s4eca.errors import S4ecaError


def reference(folder, number=1, mask=None, expression="The ship on the left"):
    path = folder / f"{number}.png"
    if not path.exists():
        Image.fromarray(picture(number)).save(path)
    source = mask or RleMask([rle(box_mask(number))], id=str(number))
    return Reference(str(number), path, expression, "train", "ship", source)


def test_sample(tmp_path):
    dataset = ReferenceDataset([reference(tmp_path, 1), reference(tmp_path, 2)], 16, keep_original=True)
    assert len(dataset) == 2
    sample = dataset[1]
    assert sample.index == 1
    assert sample.id == "2"
    assert sample.expression == "The ship on the left"
    assert sample.category == "ship"
    assert sample.original_size == (HEIGHT, WIDTH)
    assert np.array_equal(sample.original_mask.numpy(), box_mask(2))
    expected = Image.fromarray(picture(2)).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), np.array(expected))
    small = Image.fromarray(box_mask(2).astype(np.uint8)).resize((16, 16), Image.Resampling.NEAREST)
    assert np.array_equal(sample.mask.numpy(), np.array(small) > 0)


def test_training_samples_carry_no_original_mask(tmp_path):
    assert ReferenceDataset([reference(tmp_path)], 16)[0].original_mask is None


def test_key_with_epoch(tmp_path):
    augmentation = Augmentation(noise=0.2)
    dataset = ReferenceDataset([reference(tmp_path)], 16, augmentation=augmentation, seed=4)
    assert torch.equal(dataset[0].image, dataset[0, 0].image)
    assert not torch.equal(dataset[1, 0].image, dataset[0, 0].image)
    assert torch.equal(dataset[1, 0].mask, dataset[0, 0].mask)
    other = ReferenceDataset([reference(tmp_path)], 16, augmentation=augmentation, seed=5)
    assert not torch.equal(dataset[0].image, other[0].image)


def test_empty_mask_is_a_sample(tmp_path):
    mask = RleMask([rle(np.zeros((HEIGHT, WIDTH), dtype=bool))])
    sample = ReferenceDataset([reference(tmp_path, mask=mask)], 16, keep_original=True)[0]
    assert sample.mask.sum() == 0
    assert sample.original_mask.shape == (HEIGHT, WIDTH)


def test_mask_of_another_size_is_resized_to_the_image_with_one_warning(tmp_path):
    """RRSIS-D's 09976 and 15324."""
    large = np.zeros((HEIGHT * 2, WIDTH * 2), dtype=bool)
    large[20:32] = True
    rows = [reference(tmp_path, number, RleMask([rle(large)])) for number in (1, 2)]
    dataset = ReferenceDataset(rows, 16, keep_original=True)
    with pytest.warns(UserWarning, match=r"reference 1 is 48x64 pixels and its image .*1\.png 24x32"):
        sample = dataset[0]
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[10:16] = True
    assert np.array_equal(sample.original_mask.numpy(), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        assert dataset[1].original_mask.shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_that_are_not_rgb(tmp_path, mode):
    """RMSIN opens images without converting them, which breaks on the first grey one."""
    path = tmp_path / "image.tif"
    image = Image.fromarray(picture(0)).convert(mode)
    image.save(path)
    assert np.array_equal(read_image(path), np.array(image.convert("RGB")))


def test_an_opened_image_is_decoded_and_in_rgb(tmp_path):
    Image.fromarray(picture(0)[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(picture(0)).save(tmp_path / "rgb.png")
    for name in ("grey.png", "rgb.png"):
        image = open_image(tmp_path / name)
        (tmp_path / name).unlink()
        assert image.mode == "RGB"
        assert image.size == (WIDTH, HEIGHT)
        assert image.getpixel((3, 2))[0] == picture(0)[2, 3, 0]


def test_grey_jpeg(tmp_path):
    Image.fromarray(picture(0)[..., 0]).save(tmp_path / "1.jpg")
    array = read_image(tmp_path / "1.jpg")
    assert array.shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(array[..., 0], array[..., 2])


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.fromarray(picture(0)).save(tmp_path / "1.jpg", exif=exif)
    assert read_image(tmp_path / "1.jpg").shape == (HEIGHT, WIDTH, 3)


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(picture(0)[..., 0].astype(np.uint16) * 200).save(tmp_path / "5.png")
    with pytest.raises(S4ecaError, match=r"reference 5 in .*5\.png .*uint16.*8 bits"):
        read_image(tmp_path / "5.png", "5")


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated"])
def test_unreadable_image_is_never_replaced(tmp_path, damage):
    path = tmp_path / "3.jpg"
    Image.fromarray(picture(3, 200, 200)).save(path)
    content = {"empty": b"", "text": b"<html>404</html>", "truncated": path.read_bytes()[:4000]}
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[damage])
    rows = [reference(tmp_path, 1), Reference("3", path, "x", "train", None, RleMask([rle(box_mask(3))]))]
    dataset = ReferenceDataset(rows, 16)
    assert dataset[0].id == "1"
    with pytest.raises(S4ecaError, match=r"reference 3 in .*3\.jpg cannot be decoded"):
        dataset[1]


def test_undecodable_mask_is_never_replaced(tmp_path):
    (tmp_path / "mask.tif").write_bytes(b"nothing")
    dataset = ReferenceDataset([reference(tmp_path, mask=FileMask(tmp_path / "mask.tif", id="1"))], 16)
    with pytest.raises(S4ecaError, match=r"mask of reference 1 in .*mask\.tif"):
        dataset[0]


def assert_same(sample, expected):
    for item in fields(expected):
        found, wanted = getattr(sample, item.name), getattr(expected, item.name)
        if isinstance(wanted, torch.Tensor):
            assert found.dtype == wanted.dtype, item.name
            assert torch.equal(found, wanted), item.name
        elif item.name == "file":  # a copy lies elsewhere
            assert found.is_file()
        else:
            assert found == wanted, item.name


@pytest.mark.parametrize("keep_original", [True, False])
@pytest.mark.parametrize("augmentation", [None, Augmentation(noise=0.2, horizontal_flip=1.0)])
@pytest.mark.parametrize("resize", ["pil", "torch"])
def test_cached_samples_equal_uncached_ones(tmp_path, resize, augmentation, keep_original):
    Image.fromarray(box_mask(4).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    rows = [
        reference(tmp_path, 1),
        reference(tmp_path, 2, FileMask(tmp_path / "mask.png")),
        reference(tmp_path, 3, RleMask([rle(np.zeros((HEIGHT, WIDTH), dtype=bool))])),
        replace(reference(tmp_path, 4), no_target=True, category=None),
    ]
    options = {"resize": resize, "augmentation": augmentation, "keep_original": keep_original, "seed": 3}
    plain = ReferenceDataset(rows, 17, **options)
    cached = ReferenceDataset(rows, 17, **options, cache=DiskCache(tmp_path / "cache", "samples"))
    for _ in range(3):  # made, then read twice
        for index in range(4):
            assert_same(cached[2, index], plain[2, index])
    assert cached.cache.describe().entries == 4


def test_a_cached_sample_is_not_decoded_again(tmp_path, monkeypatch):
    rows = [reference(tmp_path)]
    cache = DiskCache(tmp_path / "cache", "samples")
    expected = ReferenceDataset(rows, 16, cache=cache)[0]

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(dataset_module, "open_image", refuse)
    monkeypatch.setattr(RleMask, "decode", refuse)
    assert_same(ReferenceDataset(rows, 16, cache=cache)[0], expected)


def test_a_damaged_cache_entry_is_made_again(tmp_path):
    rows = [reference(tmp_path)]
    cached = ReferenceDataset(rows, 16, cache=DiskCache(tmp_path / "cache", "samples"))
    expected = cached[0]
    entry = cached.cache.path(cached.cache_key(rows[0]))
    entry.write_bytes(entry.read_bytes()[:500])
    with pytest.warns(UserWarning, match=f"{entry} is damaged"):
        assert_same(cached[0], expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(cached[0], expected)


def test_what_has_changed_is_never_served_from_the_cache(tmp_path):
    """Even where an image keeps its name, its size in bytes and its time."""
    cache = DiskCache(tmp_path / "cache", "samples")
    path = tmp_path / "1.bmp"
    Image.fromarray(picture(1)).save(path)
    item = replace(reference(tmp_path), image=path)
    ReferenceDataset([item], 16, cache=cache)[0]
    before = path.stat()
    time.sleep(0.02)  # file systems count time in ticks of some milliseconds
    Image.fromarray(picture(2)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert_same(ReferenceDataset([item], 16, cache=cache)[0], ReferenceDataset([item], 16)[0])

    grey = tmp_path / "mask.bmp"
    Image.fromarray(box_mask(1).astype(np.uint8) * 255).save(grey)
    item = replace(item, mask=FileMask(grey))
    ReferenceDataset([item], 16, cache=cache)[0]
    time.sleep(0.02)
    Image.fromarray(box_mask(2).astype(np.uint8) * 255).save(grey)
    assert_same(ReferenceDataset([item], 16, cache=cache)[0], ReferenceDataset([item], 16)[0])


def test_cache_keys(tmp_path, monkeypatch):
    """What the stored pixels depend on is in the key; id and expression are not."""
    item = reference(tmp_path, 1)
    dataset = ReferenceDataset([item], 16)
    key = dataset.cache_key(item)
    assert dataset.cache_key(replace(item, id="7", expression="Another", category=None)) == key
    others = [
        dataset.cache_key(reference(tmp_path, 2, item.mask)),
        dataset.cache_key(replace(item, mask=RleMask([rle(box_mask(2))]))),
        dataset.cache_key(replace(item, mask=RleMask([rle(box_mask(1))] * 2))),
        ReferenceDataset([item], 17).cache_key(item),
        ReferenceDataset([item], 16, resize="torch").cache_key(item),
    ]
    for module in ("PIL", "torch"):
        monkeypatch.setattr(getattr(dataset_module, module), "__version__", "0.0")
        others.append(dataset.cache_key(item))
    monkeypatch.setattr(dataset_module, "_CONTENT_VERSION", -1)
    others.append(dataset.cache_key(item))
    assert len({key, *others}) == 9


def test_a_copied_dataset_finds_its_samples_in_the_cache(tmp_path, monkeypatch):
    cache = DiskCache(tmp_path / "cache", "samples")
    item = reference(tmp_path)
    expected = ReferenceDataset([item], 16, cache=cache)[0]
    (tmp_path / "copy").mkdir()
    moved = replace(item, image=tmp_path / "copy" / "other.png")
    moved.image.write_bytes(item.image.read_bytes())
    monkeypatch.setattr(dataset_module, "open_image", lambda *_: pytest.fail("decoded again"))
    assert_same(ReferenceDataset([moved], 16, cache=cache)[0], expected)


def test_a_missing_file_is_the_same_error_with_a_cache(tmp_path):
    item = reference(tmp_path, 1)
    item.image.unlink()
    with pytest.raises(S4ecaError, match=r"reference 1 in .*1\.png cannot be decoded"):
        ReferenceDataset([item], 16, cache=DiskCache(tmp_path / "cache", "samples"))[0]


def test_a_mask_of_another_size_warns_from_the_cache_too(tmp_path):
    large = np.zeros((HEIGHT * 2, WIDTH * 2), dtype=bool)
    large[20:32] = True
    rows = [reference(tmp_path, 1, RleMask([rle(large)]))]
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[10:16] = True
    for _ in range(2):
        dataset = ReferenceDataset(rows, 16, keep_original=True, cache=DiskCache(tmp_path / "cache", "samples"))
        with pytest.warns(UserWarning, match="48x64 pixels and its image"):
            assert np.array_equal(dataset[0].original_mask.numpy(), expected)


def test_image_keys(tmp_path, monkeypatch):
    item = reference(tmp_path, 1)
    dataset = ReferenceDataset([item], 16, keyed=True)
    key = dataset.image_key(item)
    assert dataset[0].image_key == key
    assert ReferenceDataset([item], 16)[0].image_key is None
    assert ReferenceDataset([item], 16, keyed=True, augmentation=Augmentation(noise=0.1))[0].image_key is None
    # what has the same pixels: another expression, another mask, a copy elsewhere
    (tmp_path / "copy").mkdir()
    copied = replace(item, image=shutil.copy(item.image, tmp_path / "copy" / "other.png"))
    for same in (replace(item, id="7", expression="A", mask=RleMask([rle(box_mask(2))])), copied):
        assert dataset.image_key(replace(same, image=Path(same.image))) == key
    others = [
        dataset.image_key(reference(tmp_path, 2)),
        ReferenceDataset([item], 17).image_key(item),
        ReferenceDataset([item], 16, resize="torch").image_key(item),
    ]
    for library in ("PIL", "torch"):
        with monkeypatch.context() as patch:
            patch.setattr(getattr(dataset_module, library), "__version__", "0")
            others.append(dataset.image_key(item))
    assert len({key, *others}) == 6
    item.image.unlink()
    assert dataset.image_key(item) is None


def test_without_keys_no_file_is_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "content_hash", None)
    assert ReferenceDataset([reference(tmp_path)], 16)[0].image_key is None


def test_plan_of_a_cache(tmp_path):
    """480 x 480 RGB and a bit per pixel are 720,000 bytes; 2 KiB of the rest of the last block hold the header."""
    rows = [reference(tmp_path, 1), reference(tmp_path, 2), reference(tmp_path, 1, expression="The same region")]
    cache = DiskCache(tmp_path / "cache", "samples")
    dataset = ReferenceDataset(rows, 480, cache=cache)
    plan = dataset.plan_cache(cache)
    assert (plan.entries, plan.missing, plan.needed) == (2, 2, 2 * 176 * 4096)
    dataset[2]
    assert dataset.plan_cache(cache).missing == 1
    assert 720_000 < cache.describe().size <= 176 * 4096


def test_collate(tmp_path, tokenizer):
    rows = [
        reference(tmp_path, 1, expression="The ship"),
        replace(reference(tmp_path, 2, expression="A gray vehicle"), kind="attribute"),
    ]
    dataset = ReferenceDataset(rows, 16, keep_original=True, keyed=True)
    batch = Collate(tokenizer, 8)([dataset[1], dataset[0]])
    assert isinstance(batch, Batch)
    assert len(batch) == 2
    assert batch.index.tolist() == [1, 0]
    assert batch.index.dtype == torch.int64
    ids = tokenizer.get_vocab()
    expected = [ids[token] for token in ("[CLS]", "a", "gray", "vehicle", "[SEP]", "[PAD]", "[PAD]", "[PAD]")]
    assert batch.input_ids[0].tolist() == expected
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]]
    assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.int64
    assert batch.word_ids == [expected[:5], [ids[token] for token in ("[CLS]", "the", "ship", "[SEP]")]]
    assert batch.image_keys == [dataset.image_key(rows[1]), dataset.image_key(rows[0])]
    assert torch.equal(batch.image[0], dataset[1].image)
    assert torch.equal(batch.mask[1], dataset[0].mask)
    assert batch.ids == ["2", "1"]
    assert batch.expressions == ["A gray vehicle", "The ship"]
    assert batch.categories == ["ship", "ship"]
    assert batch.kinds == ["attribute", None]
    assert batch.original_sizes == [(HEIGHT, WIDTH)] * 2
    assert [tuple(mask.shape) for mask in batch.original_masks] == [(HEIGHT, WIDTH)] * 2
    moved = batch.to("cpu")
    assert [item.name for item in fields(moved)] == [item.name for item in fields(batch)]
    assert (moved.image_keys, moved.word_ids) == (batch.image_keys, batch.word_ids)


def test_long_expressions_lose_their_end_but_not_the_separator(tmp_path, tokenizer):
    dataset = ReferenceDataset([reference(tmp_path, expression="the ship on the left")], 16)
    row = Collate(tokenizer, 5)([dataset[0]]).input_ids[0].tolist()
    assert tokenizer.convert_ids_to_tokens(row) == ["[CLS]", "the", "ship", "on", "[SEP]"]


def test_tokenizer_without_padding(tokenizer):
    class NoPadding:
        pad_token = None

    with pytest.raises(S4ecaError, match=r"tokenizer\.pad_token"):
        Collate(NoPadding(), 5)


def test_truncated_expressions_are_counted(tmp_path, tokenizer):
    words = ["the ship", "the ship on the left", "the ship on the left", "the gray ship on the left"]
    rows = [reference(tmp_path, expression=text) for text in words]
    assert token_lengths(rows, tokenizer) == [4, 7, 7, 8]


def test_lengths_of_what_a_turn_may_make_of_an_expression(tmp_path, tokenizer):
    rows = [reference(tmp_path, expression=text) for text in ("The ship is above the dam", "The ship")]
    plain, longest = (
        len(tokenizer(text)["input_ids"]) for text in (rows[0].expression, "The ship is on the left of the dam")
    )
    assert longest == plain + 3
    alone = len(tokenizer("The ship")["input_ids"])
    assert token_lengths(rows, tokenizer) == [plain, alone]
    assert token_lengths(rows, tokenizer, Augmentation(rotation=0.5)) == [longest, alone]
    assert token_lengths(rows, tokenizer, Augmentation(horizontal_flip=0.5)) == [plain, alone]
