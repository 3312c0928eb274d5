import dataclasses

import numpy as np
import pytest

from dgl_rsis.stand_ins import CountingGrounding, CountingProposer, CountingRegions, TruthProposer, view
from s4eca.dgl_rsis.parts import Phrase, Proposals, Word
from s4eca.dgl_rsis.stages import Stages, name_pixels
from s4eca.errors import S4ecaError


def phrase(text: str, local: tuple[int, ...] = (0,)) -> Phrase:
    words, start = [], 0
    for word in text.split():
        words.append(Word(word, start, start + len(word)))
        start += len(word) + 1
    return Phrase(text, tuple(words), local=local)


@pytest.fixture
def parts():
    return CountingProposer(), CountingRegions(), CountingGrounding()


def test_a_second_run_reads_what_the_first_has_made(parts, tmp_path):
    first = Stages(*parts, tmp_path)
    regions = first.regions(view())
    maps = first.maps(view(), [phrase("ship"), phrase("a ship", (1,))])
    texts = first.texts(["a", "bb", "a"])

    others = CountingProposer(), CountingRegions(), CountingGrounding()
    second = Stages(*others, tmp_path)
    np.testing.assert_array_equal(second.regions(view()), regions)
    np.testing.assert_array_equal(second.texts(["bb", "a"]), texts[[1, 0]])
    for one, other in zip(second.maps(view(), [phrase("a ship", (1,)), phrase("ship")]), maps[::-1], strict=True):
        np.testing.assert_array_equal(one.local, other.local)
    proposals = second.proposals(view())
    np.testing.assert_array_equal(proposals.masks(), first.proposals(view()).masks())
    assert proposals.sources == ("halves", "halves")
    assert (others[0].calls, others[1].calls, others[1].texts, others[2].asked) == (0, 0, [], [])
    assert second.reused == {"proposals": 1, "regions": 1, "texts": 2, "maps": 2}
    assert not any(second.seconds.values())


def test_nothing_is_made_twice_for_one_image_without_a_cache(parts):
    stages = Stages(*parts)
    stages.proposals(view())
    stages.regions(view())
    stages.regions(view())
    assert (parts[0].calls, parts[1].calls) == (1, 1)
    stages.regions(view(1))
    assert (parts[0].calls, parts[1].calls) == (2, 2)


@pytest.mark.parametrize("changed", ["proposer", "encoder", "grounding"])
def test_what_another_config_has_made_is_not_served(changed, parts, tmp_path):
    first = Stages(*parts, tmp_path)
    first.regions(view())
    first.texts(["a"])
    first.maps(view(), [phrase("ship")])
    others = [CountingProposer(), CountingRegions(), CountingGrounding()]
    place = ("proposer", "encoder", "grounding").index(changed)
    others[place] = (CountingProposer, CountingRegions, CountingGrounding)[place]("another")
    second = Stages(*others, tmp_path)
    second.regions(view())
    second.texts(["a"])
    second.maps(view(), [phrase("ship")])
    made = (others[0].calls, others[1].calls, len(others[1].texts), len(others[2].asked))
    # other masks have other features; texts and maps depend on one model each
    assert made == {"proposer": (1, 1, 0, 0), "encoder": (0, 1, 1, 0), "grounding": (0, 0, 0, 1)}[changed]


def test_other_words_or_pixels_are_other_entries(parts, tmp_path):
    stages = Stages(*parts, tmp_path)
    stages.maps(view(), [phrase("a ship", (1,))])
    stages.maps(view(), [phrase("a ship", (0, 1))])  # decoupled otherwise
    stages.maps(view(1), [phrase("a ship", (1,))])
    stages.maps(view(), [phrase("a ship", (1,))])
    assert parts[2].asked == ["a ship"] * 3


def test_only_missing_phrases_are_asked_for(parts, tmp_path):
    stages = Stages(*parts, tmp_path)
    stages.maps(view(), [phrase("ship")])
    found = stages.maps(view(), [phrase("two ships", (0, 1)), phrase("ship"), phrase("two ships", (0, 1))])
    assert parts[2].asked == ["ship", "two ships"]
    assert [maps.local[0, 0] for maps in found] == [2, 1, 2]


def test_a_damaged_entry_is_made_again_with_a_warning(parts, tmp_path):
    Stages(*parts, tmp_path).proposals(view())
    (entry,) = (tmp_path / "proposals").rglob("*.cached")
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)
    again = CountingProposer()
    with pytest.warns(UserWarning, match="damaged"):
        proposals = Stages(again, *parts[1:], tmp_path).proposals(view())
    assert again.calls == 1
    assert len(proposals) == 2
    third = CountingProposer()
    Stages(third, *parts[1:], tmp_path).proposals(view())
    assert third.calls == 0


def test_an_oracle_sees_every_truth(parts, tmp_path):
    left, right = np.zeros((12, 16), bool), np.zeros((12, 16), bool)
    left[:, :3] = True
    right[:, 9:] = True
    oracle = TruthProposer()
    stages = Stages(oracle, *parts[1:], tmp_path)
    np.testing.assert_array_equal(stages.proposals(view(truth=left)).mask(0), left)
    np.testing.assert_array_equal(stages.proposals(view(truth=right)).mask(0), right)
    stages.proposals(view(truth=left))
    assert oracle.calls == 2
    with pytest.raises(S4ecaError, match="looks at the truth"):
        stages.proposals(view())


def test_what_a_proposer_reads_besides_is_part_of_the_key(parts, tmp_path):
    class Reading(CountingProposer):
        file = "first"

        def inputs(self, view):
            return {"file": self.file}

    reading = Reading()
    stages = Stages(reading, *parts[1:], tmp_path)
    stages.proposals(view())
    reading.file = "second"
    stages.proposals(view())
    assert reading.calls == 2


def test_no_proposal_is_kept_too(parts, tmp_path):
    none = CountingProposer(count=0)
    for _ in range(2):
        stages = Stages(none, *parts[1:], tmp_path)
        assert len(stages.proposals(view())) == 0
        assert stages.regions(view()).shape == (0, 3)
    assert none.calls == 1


def test_seconds_are_of_what_was_made(parts, tmp_path):
    stages = Stages(*parts, tmp_path)
    stages.maps(view(), [phrase("ship"), phrase("a ship", (1,))])
    stages.maps(view(), [phrase("ship")])
    assert len(stages.seconds["maps"]) == 2
    assert all(seconds >= 0 for seconds in stages.seconds["maps"])


def test_names_of_pixels():
    image = view().image
    assert name_pixels(image) == name_pixels(np.asfortranarray(image.copy()))
    changed = image.copy()
    changed[0, 0, 0] ^= 1
    assert name_pixels(changed) != name_pixels(image)
    assert name_pixels(image.reshape(16, 12, 3)) != name_pixels(image)


def test_proposals_survive_a_round_trip():
    rng = np.random.default_rng(0)
    masks = rng.random((4, 7, 9)) > 0.5
    scores = np.float32([0.4, 0.3, 0.2, 0.1])
    made = Proposals.from_masks(masks, scores, ["a", "b", "a", "c"])
    read = Proposals.unpack(made.pack())
    for field in dataclasses.fields(Proposals):
        one, other = getattr(read, field.name), getattr(made, field.name)
        assert np.array_equal(one, other), field.name
    np.testing.assert_array_equal(read.masks(), masks)
    np.testing.assert_array_equal(read.take([2, 0]).masks(), masks[[2, 0]])
    assert read.take([3]).sources == ("c",)
    empty = Proposals.unpack(Proposals.from_masks(np.zeros((0, 7, 9), bool)).pack())
    assert (len(empty), empty.masks().shape, empty.sources) == (0, (0, 7, 9), ())


def test_boxes_areas_and_components_by_hand():
    mask = np.zeros((1, 6, 8), bool)
    mask[0, 1, 2:4] = True
    mask[0, 2, 4] = True  # touches by a corner: the same part
    mask[0, 5, 7] = True
    found = Proposals.from_masks(mask)
    assert found.boxes.tolist() == [[2, 1, 8, 6]]
    assert found.areas.tolist() == [4]
    assert found.components.tolist() == [2]
    with pytest.raises(ValueError, match="without a pixel"):
        Proposals.from_masks(np.zeros((1, 6, 8), bool))
