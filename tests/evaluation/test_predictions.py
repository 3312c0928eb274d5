import io
import json
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco

from s4eca.errors import S4ecaError
from s4eca.evaluation.predictions import (
    FORMATS,
    MaskError,
    decode,
    encode,
    open_writer,
    read_predictions,
    write_predictions,
)

NAMES = {"rle": "predictions.json", "npz": "predictions.npz", "png": "predictions"}
MASK = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)

masks = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
ids = st.from_regex(r"[0-9a-zé][0-9a-zé _-]{0,5}(/[0-9a-z]{1,3})?", fullmatch=True)


def speckled(number: int, height: int = 16, width: int = 24) -> np.ndarray:
    return np.random.default_rng(number).random((height, width)) < 0.3


def write_png(path: Path, values: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, format="PNG", **options)
    return path


def write_json(path: Path, content) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def refused(path: Path) -> str:
    with pytest.raises(S4ecaError) as caught:
        read_predictions(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith(".")
    return message


def bad_mask(path: Path, id: str) -> str:
    with read_predictions(path) as predictions, pytest.raises(MaskError) as caught:
        predictions.mask(id)
    assert caught.value.id == id
    assert str(path) in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("fmt", FORMATS)
@given(content=st.dictionaries(ids, masks, min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_what_was_written_is_read(fmt, content):
    with tempfile.TemporaryDirectory() as folder:
        writer = open_writer(folder, fmt)
        for id, mask in content.items():
            writer.add(id, mask)
        path = writer.close()
        assert path == Path(folder) / NAMES[fmt]
        assert [item.name for item in Path(folder).iterdir()] == [NAMES[fmt]]
        with read_predictions(path) as predictions:
            assert predictions.format == fmt
            assert sorted(predictions.ids) == sorted(content)
            for id, mask in content.items():
                assert predictions.size(id) == mask.shape
                found = predictions[id]
                assert found.dtype == bool
                assert np.array_equal(found, mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with numpy 2
@given(mask=masks)
@settings(max_examples=50, deadline=None)
def test_rle_is_cocos(mask):
    rle = encode(mask)
    assert rle["size"] == list(mask.shape)
    assert np.array_equal(coco.decode({**rle, "counts": rle["counts"].encode()}), mask)
    assert np.array_equal(decode(rle), mask)
    # runs down the columns, by hand; the first is of zeros
    runs, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    assert np.array_equal(decode({"size": list(mask.shape), "counts": runs}), mask)


def test_other_programs_read_what_is_written(tmp_path):
    for fmt in FORMATS:
        write_predictions(tmp_path / NAMES[fmt], fmt, [("rrsis_d/7", MASK)])
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as archive:
        assert archive.files == ["rrsis_d/7"]
        assert np.array_equal(archive["rrsis_d/7"], MASK)
    with Image.open(tmp_path / "predictions" / "rrsis_d" / "7.png") as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), MASK * 255)
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert list(content) == ["rrsis_d/7"]
    assert content["rrsis_d/7"]["size"] == [2, 3]


def test_png_files_of_other_programs(tmp_path):
    write_png(tmp_path / "a.png", MASK.astype(np.uint8))
    write_png(tmp_path / "b.PNG", MASK)  # one bit a pixel
    write_png(tmp_path / "c.png", np.full((2, 3), 255, np.uint8))
    write_png(tmp_path / "deep" / "down" / "d.png", np.zeros((2, 3), np.uint8))
    (tmp_path / "readme.txt").write_text("not a mask")
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves behind")
    with read_predictions(tmp_path) as predictions:
        assert set(predictions) == {"a", "b", "c", "deep/down/d"}
        assert np.array_equal(predictions.mask("a"), MASK)
        assert np.array_equal(predictions.mask("b"), MASK)
        assert predictions.mask("c").all()
        assert not predictions.mask("deep/down/d").any()


def test_npz_of_other_programs(tmp_path):
    values = {"a": MASK, "b": MASK.astype(np.uint8), "c": MASK * np.uint8(255), "d": np.asfortranarray(MASK)}
    np.savez(tmp_path / "plain.npz", **values)
    np.savez_compressed(tmp_path / "small.npz", **values)
    for name in ("plain.npz", "small.npz"):
        with read_predictions(tmp_path / name) as predictions:
            assert predictions.ids == ("a", "b", "c", "d")
            assert all(np.array_equal(mask, MASK) for mask in predictions.values())
            assert {predictions.size(id) for id in predictions} == {(2, 3)}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_stack_is_read_in_any_order(tmp_path, save):
    stack = np.stack([speckled(number) for number in range(6)])
    save(tmp_path / "stack.npz", ids=np.array([30, 10, 20, 60, 40, 50]), masks=stack.astype(np.uint8))
    with read_predictions(tmp_path / "stack.npz") as predictions:
        assert predictions.ids == ("30", "10", "20", "60", "40", "50")
        assert predictions.size("20") == (16, 24)
        for id, number in (("50", 5), ("30", 0), ("40", 4), ("10", 1), ("50", 5)):
            assert np.array_equal(predictions.mask(id), speckled(number))


def test_masks_may_be_called_masks_and_ids(tmp_path):
    path = write_predictions(tmp_path / "p.npz", "npz", [("masks", MASK), ("ids", ~MASK)])
    with read_predictions(path) as predictions:
        assert np.array_equal(predictions.mask("masks"), MASK)
        assert np.array_equal(predictions.mask("ids"), ~MASK)


def test_a_stack_is_not_held(tmp_path):
    stack = np.zeros((200, 128, 128), bool)  # 3.1 MiB
    np.savez_compressed(tmp_path / "stack.npz", masks=stack, ids=[str(number) for number in range(200)])
    with read_predictions(tmp_path / "stack.npz") as predictions:
        tracemalloc.start()
        assert sum(mask.any() for mask in predictions.values()) == 0
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("fmt", ["png", "npz"])
def test_no_damage_goes_unseen(tmp_path, fmt):
    """Cut anywhere or with any byte changed, a file gives its mask or an error, never another mask."""
    mask = speckled(3, 12, 12)
    path = write_predictions(tmp_path / NAMES[fmt], fmt, [("7", mask)])
    file = path / "7.png" if fmt == "png" else path
    whole = file.read_bytes()
    cuts = [whole[:end] for end in range(len(whole))]
    changes = [whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :] for at in range(len(whole))]
    caught = 0
    for content in cuts + changes:
        file.write_bytes(content)
        try:
            with read_predictions(path) as predictions:
                same = predictions.ids != ("7",) or np.array_equal(predictions.mask("7"), mask)
            assert same
        except S4ecaError:
            caught += 1
    assert caught > 0.9 * len(cuts)
    for end in (len(whole) // 3, len(whole) // 2, len(whole) - 20):
        file.write_bytes(whole[:end])
        with pytest.raises(S4ecaError):
            read_predictions(path).mask("7")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_in_a_large_archive(tmp_path, save):
    masks = {str(number): speckled(number, 200, 200) for number in range(2)}
    save(tmp_path / "p.npz", **masks)
    save(tmp_path / "stack.npz", masks=np.stack(list(masks.values())), ids=list(masks))
    for path in (tmp_path / "p.npz", tmp_path / "stack.npz"):
        whole = path.read_bytes()
        for at in np.linspace(400, len(whole) - 1000, 12).astype(int).tolist():
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(S4ecaError), read_predictions(path) as predictions:
                assert len(list(predictions.values())) == 2


def test_an_array_that_is_longer_than_it_says(tmp_path):
    np.savez(tmp_path / "p.npz", a=MASK)
    with zipfile.ZipFile(tmp_path / "p.npz", "a") as archive:
        archive.writestr("7.npy", archive.read("a.npy") + b"\1")
    assert bad_mask(tmp_path / "p.npz", "7") == "it is longer than its header says"


def test_json_cut_anywhere_is_refused(tmp_path):
    path = write_predictions(tmp_path / "p.json", "rle", [("7", MASK), ("8", ~MASK)])
    text = path.read_text().rstrip("\n")
    for end in range(len(text)):
        path.write_text(text[:end])
        assert "cannot be read as JSON" in refused(path)


def test_ids_that_come_twice(tmp_path):
    rle = json.dumps(encode(MASK))
    (tmp_path / "p.json").write_text(f'{{"7": {rle}, "8": {rle}, "7": {rle}, "9": {rle}, "9": {rle}}}')
    assert "has 2 keys more than once (7, 9)" in refused(tmp_path / "p.json")

    write_png(tmp_path / "p" / "7.png", MASK)
    write_png(tmp_path / "p" / "7.PNG", MASK)
    assert "has 1 ids in more than one file (7)" in refused(tmp_path / "p")

    np.savez(tmp_path / "stack.npz", masks=np.stack([MASK] * 8), ids=list("12121357"))
    assert "has 2 ids more than once (1, 2)" in refused(tmp_path / "stack.npz")

    np.savez(tmp_path / "p.npz", **{"7": MASK})
    with zipfile.ZipFile(tmp_path / "p.npz", "a") as archive:
        content = archive.read("7.npy")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("7.npy", content)
    assert "has 1 ids more than once (7)" in refused(tmp_path / "p.npz")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 1, 255]], np.uint8), "it holds the values 0, 1, 255 where"),
        (np.array([[0, 128]], np.uint8), "it holds the values 0, 128 where"),
        (np.array([[1, 255]], np.uint8), "it holds the values 1, 255 where"),
        (np.arange(256, dtype=np.uint8)[None], "it holds the values 0, 1, 2, 3, 4, 5, … 256 in all where"),
    ],
)
def test_masks_that_are_not_binary(tmp_path, values, reason):
    write_png(tmp_path / "p" / "7.png", values)
    np.savez(tmp_path / "p.npz", **{"7": values})
    np.savez(tmp_path / "stack.npz", masks=values[None], ids=["7"])
    for name in ("p", "p.npz", "stack.npz"):
        assert reason in bad_mask(tmp_path / name, "7")


def test_png_files_that_are_no_masks(tmp_path):
    write_png(tmp_path / "rgb.png", np.zeros((2, 3, 3), np.uint8))
    write_png(tmp_path / "deep.png", np.zeros((2, 3), np.uint16))
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "jpeg.png", format="JPEG")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    assert bad_mask(tmp_path, "rgb") == "it has mode RGB where 8 bits in one channel are expected"
    assert "it has mode I;16 where" in bad_mask(tmp_path, "deep")
    for id in ("jpeg", "empty", "text"):
        assert "cannot be read as PNG" in bad_mask(tmp_path, id)
        with pytest.raises(MaskError, match="cannot be read as PNG"):
            read_predictions(tmp_path).size(id)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((2, 3), np.float32), "it is float32 where bool or uint8 is expected"),
        (np.zeros((2, 3), np.int64), "it is int64 where bool or uint8 is expected"),
        (np.zeros((1, 2, 3), bool), r"it has shape (1, 2, 3) where (H, W) is expected"),
        (np.zeros((0, 3), bool), r"it has shape (0, 3) where (H, W) is expected"),
        (np.array([[MASK, None]], object), "it is object where bool or uint8 is expected"),
    ],
)
def test_arrays_that_are_no_masks(tmp_path, values, reason):
    np.savez(tmp_path / "p.npz", a=MASK, b=values)
    assert bad_mask(tmp_path / "p.npz", "b") == reason
    with read_predictions(tmp_path / "p.npz") as predictions:
        assert predictions.size("a") == (2, 3)
        with pytest.raises(MaskError):
            predictions.size("b")


def test_stacks_that_do_not_fit(tmp_path):
    path, stack = tmp_path / "stack.npz", np.stack([MASK, MASK])
    np.savez(path, masks=stack, ids=["1", "2", "3"])
    assert "has 3 ids for 2 masks" in refused(path)
    np.savez(path, masks=stack, ids=["1", "2"], scores=[0.5, 0.5])
    assert "holds more than masks and ids (scores)" in refused(path)
    np.savez(path, masks=stack.astype(float), ids=["1", "2"])
    assert "float64 where bool or uint8 is expected" in refused(path)
    np.savez(path, masks=np.asfortranarray(stack), ids=["1", "2"])
    assert "numpy.ascontiguousarray(masks)" in refused(path)
    np.savez(path, masks=stack, ids=np.array(["1", None], object))
    assert "has no readable masks and ids" in refused(path)
    np.savez(path, masks=stack, ids=[0.5, 1.5])
    assert "The ids of" in refused(path)


def header(dtype: str, *shape: int) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_headers_that_promise_too_much_are_not_made_room_for(tmp_path):
    path = tmp_path / "p.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("7.npy", header("|b1", 10**6, 10**6))
    assert "pixels that an image may have" in bad_mask(path, "7")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ids.npy", header("<U9", 10**12))
        archive.writestr("masks.npy", header("|b1", 2, 2, 3) + bytes(12))
    assert "no readable masks and ids (it ends early)" in refused(path)


GOOD = {"size": [2, 3], "counts": [2, 1, 1, 2]}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ([1, 2], "it is a list and no object"),
        ({"counts": "6"}, "it has no size"),
        ({"size": [2, 3]}, "it has no counts"),
        ({**GOOD, "size": [2.0, 3]}, "its size is not [height, width]"),
        ({**GOOD, "size": [2, 3, 1]}, "its size is not [height, width]"),
        ({**GOOD, "size": [0, 3]}, "its size is not [height, width]"),
        ({**GOOD, "size": [True, 6]}, "its size is not [height, width]"),
        ({**GOOD, "counts": 6}, "its counts are neither text nor a list"),
        ({**GOOD, "counts": [7, -1]}, "its counts are not whole numbers"),
        ({**GOOD, "counts": [2, 1, 1, 1]}, "its counts do not add up to 2x3 pixels"),
        ({**GOOD, "counts": [2**63, 2**63, 6]}, "its counts do not add up to 2x3 pixels"),  # modulo 2**64 they do
        ({**GOOD, "counts": [True, 5]}, "its counts are not whole numbers"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "its size [1000000, 1000000] is above"),
    ],
)
def test_json_that_holds_no_rle(tmp_path, entry, reason):
    path = write_json(tmp_path / "p.json", {"7": GOOD, "8": entry, "9": GOOD})
    message = refused(path)
    assert "1 of 3 entries" in message
    assert f"8: {reason}" in message


def test_byte_order_marks_and_other_encodings(tmp_path):
    """As Windows' editors and its shell's `>` write files."""
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"7": GOOD, "\ufeff8": GOOD}), encoding="utf-8-sig")
    assert list(read_predictions(path)) == ["7", "8"]
    path.write_text(json.dumps({"7": GOOD}), encoding="utf-16")
    assert "iconv -f UTF-16 -t UTF-8" in refused(path)


def test_hidden_files_beside_predictions(tmp_path):
    write_png(tmp_path / "masks" / "7.png", np.zeros((2, 3), np.uint8))
    for litter in ("._7.png", ".DS_Store", "Thumbs.db", ".old/8.png", "__MACOSX/9.png"):
        (tmp_path / "masks" / litter).parent.mkdir(exist_ok=True)
        (tmp_path / "masks" / litter).write_bytes(b"")
    assert list(read_predictions(tmp_path / "masks")) == ["7"]
    with pytest.raises(S4ecaError, match=r"other things than PNG files \(.*\.DS_Store"):
        write_predictions(tmp_path / "masks", "png", [])


def test_a_hundred_bad_entries_are_counted(tmp_path):
    path = write_json(tmp_path / "p.json", {str(number): None for number in range(100)})
    message = refused(path)
    assert "100 of 100 entries" in message
    assert "4: it is a NoneType" in message
    assert "5: it" not in message


@pytest.mark.parametrize("counts", ["", "1", "0o", "~~~~", "é", "0" * 9, encode(MASK)["counts"][:-1]])
def test_damaged_runs(tmp_path, counts):
    path = write_json(tmp_path / "p.json", {"7": {"size": [2, 3], "counts": counts}})
    assert bad_mask(path, "7")
    with pytest.raises(S4ecaError, match="cannot be decoded"):
        decode({"size": [2, 3], "counts": counts})


def test_json_of_another_structure(tmp_path):
    assert "holds a JSON list" in refused(write_json(tmp_path / "p.json", [GOOD]))
    assert "holds a JSON str" in refused(write_json(tmp_path / "p.json", "mask"))
    (tmp_path / "p.json").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in refused(tmp_path / "p.json")
    (tmp_path / "p.json").write_text("[" * 100_000)
    assert "cannot be read as JSON" in refused(tmp_path / "p.json")


def test_nothing_to_read(tmp_path):
    assert "There are no predictions at" in refused(tmp_path / "absent.json")
    (tmp_path / "empty").mkdir()
    assert "holds no prediction" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").touch()
    assert "holds no prediction" in refused(tmp_path / "empty")
    assert "holds no prediction" in refused(write_json(tmp_path / "p.json", {}))
    np.savez(tmp_path / "p.npz")
    assert "holds no prediction" in refused(tmp_path / "p.npz")
    np.savez(tmp_path / "stack.npz", masks=np.zeros((0, 2, 3), bool), ids=np.array([], str))
    assert "holds no prediction" in refused(tmp_path / "stack.npz")


def test_files_that_are_something_else(tmp_path):
    for name in ("mask.png", "masks.pkl", "masks"):
        (tmp_path / name).write_bytes(b"x")
        assert "cannot be told" in refused(tmp_path / name)
    (tmp_path / "p.npz").write_bytes(b"\x80\x04pickled")
    assert "cannot be read as npz" in refused(tmp_path / "p.npz")
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("7.png", b"x")
    assert "members that are no arrays (7.png)" in refused(tmp_path / "p.npz")


def test_an_unknown_id_is_a_key_error(tmp_path):
    for fmt in FORMATS:
        path = write_predictions(tmp_path / NAMES[fmt], fmt, [("7", MASK)])
        with read_predictions(path) as predictions:
            assert "8" not in predictions
            with pytest.raises(KeyError):
                predictions.mask("8")


@pytest.mark.parametrize("fmt", FORMATS)
def test_writers_refuse_what_is_no_prediction(tmp_path, fmt):
    with open_writer(tmp_path, fmt) as writer:
        writer.add("7", MASK)
        with pytest.raises(S4ecaError, match="two predictions for 7"):
            writer.add("7", MASK)
        for wrong in (MASK.astype(np.uint8), MASK[None], MASK[:0]):
            with pytest.raises(S4ecaError, match="pass a bool mask"):
                writer.add("8", wrong)
    with pytest.raises(S4ecaError, match="are closed"):
        writer.add("8", MASK)
    with read_predictions(writer.path) as predictions:
        assert predictions.ids == ("7",)


@pytest.mark.parametrize("fmt", FORMATS)
def test_files_are_written_whole_or_not_at_all(tmp_path, fmt):
    path = write_predictions(tmp_path / NAMES[fmt], fmt, [("old", MASK)])

    def interrupted():
        yield "new", ~MASK
        assert read_predictions(path).ids == ("old",)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(path, fmt, interrupted())
    assert [item.name for item in tmp_path.iterdir()] == [NAMES[fmt]]
    assert read_predictions(path).ids == ("old",)
    write_predictions(path, fmt, [("new", ~MASK)])
    assert read_predictions(path).ids == ("new",)
    assert [item.name for item in tmp_path.iterdir()] == [NAMES[fmt]]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "thesis.tex").touch()
    with pytest.raises(S4ecaError, match="holds other things than PNG files"):
        open_writer(tmp_path, "png")
    assert (tmp_path / "predictions" / "thesis.tex").exists()
    (tmp_path / "file").touch()
    with pytest.raises(S4ecaError, match="cannot be written"):
        open_writer(tmp_path / "file", "rle")
    for fmt in ("rle", "npz"):
        with pytest.raises(S4ecaError, match="is a folder"):
            write_predictions(tmp_path, fmt, [])
    with pytest.raises(S4ecaError, match="There is no format 'jpg' for predictions: choose one of rle, png, npz"):
        open_writer(tmp_path, "jpg")
    assert {item.name for item in tmp_path.iterdir()} == {"predictions", "file"}


@pytest.mark.parametrize("id", ["", "../7", "/7", "a//b", "a/../b", ".hidden", "a\\b", "a\0b", "a" * 300])
def test_ids_that_cannot_be_file_names(tmp_path, id):
    with pytest.raises(S4ecaError, match="cannot be"):
        write_predictions(tmp_path / "png", "png", [(id, MASK)])
    assert list(tmp_path.iterdir()) == []
    path = write_predictions(tmp_path / "p.json", "rle", [(id, MASK)])
    assert read_predictions(path).ids == (id,)
