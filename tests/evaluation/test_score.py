import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from layouts import write_rrsis_d
from s4eca.data import Collate, ReferenceDataset, read_rrsis_d
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError
from s4eca.evaluation.metrics import INTERSECTION, NO_TARGET, UNION, ReferringMetrics
from s4eca.evaluation.predictions import FORMATS, open_writer, read_predictions, write_predictions
from s4eca.evaluation.predictions.base import Predictions
from s4eca.evaluation.protocols import PROTOCOLS
from s4eca.evaluation.results import build_evaluation
from s4eca.evaluation.score import notes, score
from s4eca.evaluation.summary import summarise_evaluation

SIZE = 12


@dataclasses.dataclass(frozen=True)
class ArrayMask:
    array: np.ndarray

    def decode(self) -> np.ndarray:
        return self.array


class Held(Predictions):
    """Predictions in memory that keep a list of what was decoded."""

    format = "held"

    def __init__(self, content: dict[str, np.ndarray]) -> None:
        super().__init__(Path("held"), content)
        self.content = content
        self.decoded: list[str] = []

    def size(self, id: str) -> tuple[int, int]:
        return self.content[id].shape

    def mask(self, id: str) -> np.ndarray:
        self.decoded.append(id)
        return self.content[id]


def speckled(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.random(size) < rng.choice([0, 0.2, 0.7, 1])


def make_references(folder: Path, truths: dict[str, np.ndarray], sizes=None, no_target=()) -> list[Reference]:
    """References on images of the truths' sizes, or of other sizes."""
    references = []
    for place, (id, truth) in enumerate(truths.items()):
        height, width = truth.shape if sizes is None else sizes[place]
        image = folder / f"image_{place}.png"
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(image)
        references.append(Reference(id, image, "the ship", "test", "ship", ArrayMask(truth), id in no_target))
    return references


def nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    resized = Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    return np.array(resized) == 1


def by_hand(index: int, prediction: np.ndarray, truth: np.ndarray, no_target: bool = False) -> list[int]:
    pairs = list(zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True))
    both = sum(p and t for p, t in pairs)
    return [index, both, sum(p or t for p, t in pairs), sum(t for _, t in pairs), -1, int(no_target)]


def no_words(expressions: list[str], max_length: int, **_) -> dict[str, torch.Tensor]:
    words = torch.zeros(len(expressions), max_length, dtype=torch.int64)
    return {"input_ids": words, "attention_mask": words}


def refused(predictions, references, *arguments, **options) -> str:
    with pytest.raises(S4ecaError) as caught:
        score(predictions, references, *arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("fmt", FORMATS)
@given(
    seed=st.integers(0, 10**6),
    shapes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=4),
)
@settings(max_examples=15, deadline=None)
def test_rows_are_counts_of_pixels(fmt, seed, shapes):
    rng = np.random.default_rng(seed)
    truths = {f"{place}": speckled(rng, shape) for place, shape in enumerate(shapes)}
    given_masks = {id: speckled(rng, truth.shape) for id, truth in truths.items()}
    with tempfile.TemporaryDirectory() as folder:
        references = make_references(Path(folder), truths)
        backwards = reversed(given_masks.items())
        path = write_predictions(Path(folder, "p" + {"rle": ".json", "npz": ".npz", "png": ""}[fmt]), fmt, backwards)
        with read_predictions(path) as predictions:
            rows, sizes = score(predictions, references, SIZE)
    pairs = [(given_masks[id], truth) for id, truth in truths.items()]
    plain = [by_hand(place, *pair) for place, pair in enumerate(pairs)]
    small = [by_hand(place, nearest(p, SIZE, SIZE), nearest(t, SIZE, SIZE)) for place, (p, t) in enumerate(pairs)]
    assert {name: content.tolist() for name, content in rows.items()} == {
        "lavt": small,
        "original": plain,
        "detris": plain,
    }
    assert sizes.tolist() == [[place, *truth.shape, truth.sum()] for place, truth in enumerate(truths.values())]


def test_at_input_size_lavt_alone_is_scored(tmp_path):
    rng = np.random.default_rng(0)
    truths = {"a": speckled(rng, (20, 30)), "b": np.ones((5, 7), bool)}
    masks = {id: rng.random((SIZE, SIZE)) < 0.5 for id in truths}
    references = make_references(tmp_path, truths)
    rows, sizes = score(Held(masks), references, SIZE, at="input")
    expected = [by_hand(place, masks[id], nearest(truths[id], SIZE, SIZE)) for place, id in enumerate(truths)]
    assert {name: content.tolist() for name, content in rows.items()} == {"lavt": expected}
    assert sizes.tolist() == [[0, 20, 30, truths["a"].sum()], [1, 5, 7, 35]]


def test_exported_predictions_score_as_the_evaluation_did(tmp_path):
    """All references of a split, one of whose masks has another size than its image, through the real classes."""

    def edit(refs, instances):
        instances["annotations"][1]["segmentation"] = [{"size": [20, 28], "counts": [130, 211, 219]}]

    root = write_rrsis_d(tmp_path / "data", train=0, val=0, test=5, edit=edit)
    references = read_rrsis_d(root, "test", expected={})
    dataset = ReferenceDataset(references, SIZE, keep_original=True)
    metric, generator = ReferringMetrics(), torch.Generator().manual_seed(0)
    original = {fmt: open_writer(tmp_path / "original", fmt) for fmt in FORMATS}
    small = open_writer(tmp_path / "input", "rle")
    with pytest.warns(UserWarning, match="20x28"):
        batches = list(DataLoader(dataset, batch_size=2, collate_fn=Collate(no_words, 8)))
    for batch in batches:
        logits = torch.randn(len(batch), SIZE, SIZE, generator=generator)
        metric.update(logits, batch)
        for id, (prediction, _) in zip(batch.ids, PROTOCOLS["original"].masks(logits, batch), strict=True):
            for writer in original.values():
                writer.add(id, prediction.numpy())
        for id, logit in zip(batch.ids, logits, strict=True):
            small.add(id, (logit > 0).numpy())
    expected, sizes = metric.gathered()
    assert expected["original"][:, INTERSECTION].any()

    for writer in original.values():
        with read_predictions(writer.close()) as predictions, pytest.warns(UserWarning, match="1 of 5 truths"):
            rows, found = score(predictions, references, SIZE)
        assert np.array_equal(rows["original"], expected["original"])
        assert np.array_equal(found, sizes)
    with read_predictions(small.close()) as predictions, pytest.warns(UserWarning, match="1 of 5 truths"):
        rows, found = score(predictions, references, SIZE, at="input")
    assert np.array_equal(rows["lavt"], expected["lavt"])
    assert np.array_equal(found, sizes)


def test_scores_by_hand(tmp_path):
    """IoU 1/2, 0 and 1: the first is a hit at 0.5 under `original` and none under `detris`."""
    row = np.ones((1, 4), bool)
    half = np.array([[True, True, False, False]])
    references = make_references(tmp_path, {"a": row, "b": ~row, "c": row})
    predictions = Held({"a": half, "b": row, "c": row})
    evaluation = build_evaluation({}, references, *score(predictions, references, SIZE))
    protocols = summarise_evaluation(evaluation, replicates=0)["protocols"]
    assert protocols["original"]["mIoU"] == 0.5
    assert protocols["original"]["oIoU"] == 6 / 12
    assert protocols["original"]["Pr@0.5"] == 2 / 3
    assert protocols["original"]["n"] == 3
    assert protocols["original"]["n_empty"] == 1
    assert protocols["detris"]["Pr@0.5"] == 1 / 3
    assert protocols["detris"]["mIoU"] == pytest.approx((2 / 4.000001 + 4 / 4.000001) / 3, abs=1e-12)


def test_references_without_target_are_predicted_too(tmp_path):
    nothing = np.zeros((4, 4), bool)
    references = make_references(tmp_path, {"a": nothing, "b": nothing}, no_target=("a", "b"))
    rows, _ = score(Held({"a": nothing, "b": ~nothing}), references, SIZE)
    assert rows["original"][:, NO_TARGET].tolist() == [1, 1]
    assert rows["original"][:, UNION].tolist() == [0, 16]
    assert "1 of 2 references have no prediction (b)" in refused(Held({"a": nothing}), references, SIZE)


@pytest.fixture
def references(tmp_path: Path) -> list[Reference]:
    return make_references(tmp_path, {str(number): np.ones((4, 6), bool) for number in range(8)})


def full(*ids: int | str, size: tuple[int, int] = (4, 6)) -> dict[str, np.ndarray]:
    return {str(id): np.ones(size, bool) for id in ids}


def test_missing_and_unknown_ids(references):
    predictions = Held(full(0, "00001", "x"))
    message = refused(predictions, references, SIZE)
    assert "7 of 8 references have no prediction (1, 2, 3, 4, 5, … 7 in all)" in message
    assert "2 of 3 predictions are for no reference (00001, x)" in message
    assert predictions.decoded == []
    predictions = Held(full(*range(9)))
    message = refused(predictions, references, SIZE)
    assert "1 of 9 predictions are for no reference (8)" in message
    assert "no prediction (" not in message
    assert predictions.decoded == []


def test_references_that_share_an_id(references):
    assert "1 references share their id" in refused(Held(full(*range(8))), [*references, references[0]], SIZE)


def test_all_wrong_sizes_are_told_at_once(references):
    predictions = Held({**full(*range(8)), **full(1, size=(6, 4)), **full(5, size=(4, 5))})
    message = refused(predictions, references, SIZE)
    assert "2 of 8 predictions" in message
    assert "(1 is 6x4 and not 4x6, 5 is 4x5 and not 4x6)" in message
    assert "write each mask at the size of its image" in message
    assert predictions.decoded == []


def test_sizes_that_suit_the_other_setting(references):
    predictions = Held(full(*range(8), size=(5, 5)))
    message = refused(predictions, references, SIZE)
    assert "… 8 in all" in message
    assert "at=input image_size=5" in message
    assert "at=input image_size=5" in refused(predictions, references, SIZE, at="input")
    score(predictions, references, 5, at="input")
    predictions = Held(full(*range(8)))
    assert "at=original" in refused(predictions, references, SIZE, at="input")
    assert predictions.decoded == []


def test_masks_that_are_no_masks_are_counted(tmp_path, references):
    write_predictions(tmp_path / "p", "png", full(*range(8)).items())
    Image.fromarray(np.full((4, 6), 7, np.uint8)).save(tmp_path / "p" / "5.png")
    cut = tmp_path / "p" / "2.png"
    cut.write_bytes(cut.read_bytes()[:-14])
    message = refused(read_predictions(tmp_path / "p"), references, SIZE)
    assert "2 of 8 predictions" in message
    assert message.index("2: it cannot be read as PNG") < message.index("5: it holds the values 7 where")
    assert str(tmp_path / "p") in message
    # without a header there is no size to compare
    cut.write_bytes(b"")
    assert "1 of 8 predictions" in refused(read_predictions(tmp_path / "p"), references, SIZE)


def test_an_image_that_cannot_be_read(references):
    references[3].image.write_bytes(b"no image")
    predictions = Held(full(*range(8)))
    message = refused(predictions, references, SIZE)
    assert str(references[3].image) in message
    assert predictions.decoded == []


def test_settings_that_cannot_be(references):
    predictions = Held(full(*range(8)))
    assert "at=1024" in refused(predictions, references, SIZE, at="1024")
    assert "image_size=0" in refused(predictions, references, 0)


def test_each_protocol_has_its_note():
    assert list(notes("original", 480)) == ["lavt", "original", "detris"]
    assert list(notes("input", 480)) == ["lavt"]
    assert "480x480" in notes("input", 480)["lavt"]
    assert "0.35" in notes("original", 480)["detris"]
