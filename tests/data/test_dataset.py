import warnings
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image

from layouts import HEIGHT, WIDTH, box_mask, picture, rle
from s4eca.data.dataset import Collate, ReferenceDataset, count_truncated, read_image, token_lengths
from s4eca.data.masks import FileMask, RleMask
from s4eca.data.references import Batch, Reference
from s4eca.data.transforms import Augmentation, Photometric
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
    augmentation = Augmentation(Photometric(noise=0.2))
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
    tall = np.zeros((HEIGHT * 2, WIDTH), dtype=bool)
    tall[20:32] = True
    rows = [reference(tmp_path, number, RleMask([rle(tall)])) for number in (1, 2)]
    dataset = ReferenceDataset(rows, 16, keep_original=True)
    with pytest.warns(UserWarning, match=r"reference 1 is 48x32 pixels and its image .*1\.png 24x32"):
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
    with pytest.raises(S4ecaError, match=r"reference 5 in .*5\.png has mode I;16.*8 bits"):
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


def test_collate(tmp_path, tokenizer):
    rows = [reference(tmp_path, 1, expression="The ship"), reference(tmp_path, 2, expression="A gray vehicle")]
    dataset = ReferenceDataset(rows, 16, keep_original=True)
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
    assert torch.equal(batch.image[0], dataset[1].image)
    assert torch.equal(batch.mask[1], dataset[0].mask)
    assert batch.ids == ["2", "1"]
    assert batch.expressions == ["A gray vehicle", "The ship"]
    assert batch.categories == ["ship", "ship"]
    assert batch.original_sizes == [(HEIGHT, WIDTH)] * 2
    assert [tuple(mask.shape) for mask in batch.original_masks] == [(HEIGHT, WIDTH)] * 2
    moved = batch.to("cpu")
    assert [item.name for item in fields(moved)] == [item.name for item in fields(batch)]


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
    assert [count_truncated(rows, tokenizer, limit) for limit in (3, 4, 6, 7, 8)] == [4, 3, 3, 1, 0]
    assert count_truncated([], tokenizer, 5) == 0
