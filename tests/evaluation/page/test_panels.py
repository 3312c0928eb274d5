import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from made_evaluation import make_evaluation
from s4eca.data.masks import FileMask
from s4eca.data.references import Reference
from s4eca.errors import S4ecaError
from s4eca.evaluation.page.panels import Panel, choose_panels, save_panels
from s4eca.evaluation.pictures import panel
from s4eca.evaluation.results import Evaluation, SampleInfo


def scored(ious: list[int], ids: list[str] | None = None, no_target: tuple[int, ...] = (), empty: tuple[int, ...] = ()):
    """An evaluation whose samples have these IoUs, in percent, of truths of 100 pixels."""
    ids = ids or [f"{place:03d}" for place in range(len(ious))]
    samples = [
        SampleInfo(id, "a.jpg", "it", None, place in no_target, (20, 20), 0 if place in empty else 100)
        for place, id in enumerate(ids)
    ]
    rows = [
        [place, iou, 100, 0 if place in (*empty, *no_target) else 100, -1, place in no_target]
        for place, iou in enumerate(ious)
    ]
    return Evaluation({}, samples, {"lavt": np.array(rows, np.int64).reshape(-1, 6)})


def chosen(evaluation: Evaluation, count: int) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for choice in choose_panels(evaluation, "lavt", count):
        groups.setdefault(choice.group, []).append(choice.position)
    return groups


def test_best_median_and_worst_by_hand():
    evaluation = scored([50, 10, 90, 30, 70, 20, 80, 60, 40])
    assert chosen(evaluation, 2) == {"best": [2, 6], "median": [8, 0], "worst": [1, 5]}
    assert chosen(evaluation, 1) == {"best": [2], "median": [0], "worst": [1]}
    assert chosen(evaluation, 0) == {}


def test_ties_are_broken_by_id_whatever_the_order_of_the_samples():
    evaluation = scored([0, 0, 0, 100, 100, 100], ["c", "a", "b", "f", "d", "e"])
    assert chosen(evaluation, 1) == {"best": [4], "median": [0], "worst": [1]}
    assert chosen(evaluation, 2) == {"best": [4, 5], "median": [0, 3], "worst": [1, 2]}


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1)), (5, (2, 1, 2))]
)
def test_few_samples_are_shared_out(count, sizes):
    groups = chosen(scored(list(range(count))), 6)
    assert tuple(len(groups.get(name, [])) for name in ("best", "median", "worst")) == sizes


def test_samples_without_a_truth_are_never_shown():
    evaluation = scored([0, 0, 10, 20, 30, 100], empty=(0,), no_target=(1, 5))
    assert chosen(evaluation, 6) == {"best": [4], "median": [3], "worst": [2]}


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(0, 8))
def test_groups_are_disjoint_and_ordered(ious, count):
    groups = chosen(scored(ious), count)
    places = [place for group in groups.values() for place in group]
    assert len(set(places)) == len(places)
    assert sum(len(group) <= count for group in groups.values()) == len(groups)
    assert len(places) == min(3 * count, len(ious))
    best, median, worst = ([ious[place] for place in groups.get(name, [])] for name in ("best", "median", "worst"))
    ranked = sorted(ious)
    assert best == ranked[::-1][: len(best)]
    assert worst == ranked[: len(worst)]
    assert median == sorted(median)
    if len(ious) >= 3 * count > 0:
        middle = np.median(ious)
        assert min(median) <= middle <= max(median) or count == 1


def test_choices_carry_sample_and_score():
    evaluation = make_evaluation(12)
    first = choose_panels(evaluation, "original", 2)[0]
    row = evaluation.rows["original"][first.position]
    assert first.sample is evaluation.samples[first.position]
    assert first.iou == row[1] / row[2]
    assert first.protocol == "original"
    assert choose_panels(evaluation, "lavt", 2)[0].iou != first.iou
    with pytest.raises(S4ecaError, match="no protocol 'coco' to choose panels by: use one of lavt, original, detris"):
        choose_panels(evaluation, "coco", 2)


def test_a_panel_is_read_from_the_dataset(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    truth = np.zeros((2, 3), bool)
    truth[1, 2] = True
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(truth).save(tmp_path / "m.png")
    choice = choose_panels(scored([50]), "lavt", 1)[0]
    reference = Reference("000", tmp_path / "a.png", "it", "test", None, FileMask(tmp_path / "m.png"))
    read = Panel.read(choice, reference, np.ones((4, 6), bool))
    assert np.array_equal(read.image, image)
    # a truth of half the size: each pixel becomes four
    assert np.argwhere(read.truth).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    with pytest.raises(S4ecaError, match=r"prediction of sample 000 has \(2, 3\) pixels and its image \(4, 6\)"):
        Panel.read(choice, reference, np.ones((2, 3), bool))


def test_panels_are_saved_under_their_group(tmp_path):
    image, mask = np.zeros((320, 320, 3), np.uint8), np.zeros((320, 320), bool)
    mask[:100] = True
    choices = choose_panels(scored([10, 20, 30, 40, 50, 60]), "lavt", 2)
    panels = [Panel(choice, image, mask, ~mask) for choice in choices]
    paths = save_panels(tmp_path / "pictures", panels)
    assert [path.name for path in paths] == [
        "best_1_000005.png", "best_2_000004.png", "median_1_000002.png", "median_2_000003.png",
        "worst_1_000000.png", "worst_2_000001.png",
    ]  # fmt: skip
    expected = panel(np.moveaxis(image, -1, 0), "it", mask, ~mask, 0.6, "lavt")
    assert np.array_equal(np.asarray(Image.open(paths[0])), np.asarray(expected))
    assert [path.name for path in save_panels(tmp_path / "pictures", panels[:1])] == ["best_1_000005.png"]
    assert len(list((tmp_path / "pictures").iterdir())) == 1, "earlier ones would pass for this evaluation's"
    assert save_panels(tmp_path / "none", []) == []
    assert not (tmp_path / "none").exists()
