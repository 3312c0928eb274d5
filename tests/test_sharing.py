import pickle
from pathlib import Path

import torch

from s4eca.data.dataset import Collate
from s4eca.data.references import Sample
from s4eca.sharing import Rows, Shared, find_shared
from s4eca.tokenizer import aerial_tokenizer

A, B = Path("a.png"), Path("b.png")


def sample(index: int, expression: str, file: Path | None, shade: int) -> Sample:
    image = torch.full((3, 4, 4), shade, dtype=torch.uint8)
    return Sample(index, str(index), expression, None, image, torch.zeros(4, 4, dtype=torch.bool), (4, 4), file=file)


def places(rows: Rows | None) -> tuple[list[int], list[int]] | None:
    return None if rows is None else (rows.first.tolist(), rows.group.tolist())


def test_equal_tokens_and_equal_pixels_of_a_file_are_found():
    collate = Collate(aerial_tokenizer(), 8)
    batch = collate(
        [
            sample(0, "the ship", A, 1),
            sample(1, "The  Ship", B, 1),  # the same tokens; another file with the same pixels
            sample(2, "the car", A, 1),
            sample(3, "the ship", A, 2),  # the same file, augmented
            sample(4, "the car", A, 2),
        ]
    )
    assert places(batch.shared.words) == ([0, 2], [0, 0, 1, 0, 1])
    assert places(batch.shared.images) == ([0, 1, 3], [0, 1, 0, 2, 2])
    rows = batch.shared.words
    assert torch.equal(rows.spread(rows.join(batch.input_ids)), batch.input_ids)
    rows = batch.shared.images
    assert torch.equal(rows.spread(rows.join(batch.image)), batch.image)


def test_expressions_that_are_cut_to_the_same_tokens_are_equal():
    batch = Collate(aerial_tokenizer(), 4)([sample(0, "the gray ship", A, 1), sample(1, "the gray car", B, 1)])
    assert places(batch.shared.words) == ([0], [0, 0])
    assert batch.shared.images is None


def test_a_batch_of_different_samples_carries_nothing():
    collate = Collate(aerial_tokenizer(), 8)
    assert collate([sample(0, "the ship", A, 1), sample(1, "the car", B, 1)]).shared is None
    assert collate([sample(0, "the ship", None, 1), sample(1, "the car", None, 1)]).shared is None


def test_it_travels_with_the_batch():
    collate = Collate(aerial_tokenizer(), 8)
    batch = collate([sample(0, "the ship", A, 1), sample(1, "the ship", A, 1)])
    there = pickle.loads(pickle.dumps(batch)).to("meta")
    assert {rows.first.device.type for rows in (there.shared.words, there.shared.images)} == {"meta"}
    assert {rows.group.device.type for rows in (there.shared.words, there.shared.images)} == {"meta"}
    alone = Shared(words=batch.shared.words).map(lambda tensor: tensor.to("meta"))
    assert alone.images is None
    assert collate([sample(0, "the ship", A, 1), sample(1, "the car", B, 1)]).to("meta").shared is None


def test_images_are_compared_with_every_earlier_one_of_their_file():
    one, other = torch.zeros(2), torch.ones(2)
    shared = find_shared("abcd", [A, A, A, A], [one, other, one, other])
    assert shared.words is None
    assert places(shared.images) == ([0, 1], [0, 1, 0, 1])
