"""What is published of real images is what its samples say."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from made_evaluation import make_evaluation
from s4eca.evaluation.results import write_samples


@pytest.fixture(scope="module")
def headline(script):
    return script("check_headline")


def evaluation(ious, kinds, areas, **about):
    """Unions of 100 pixels."""
    made = make_evaluation(len(ious), **about)
    samples = [
        dataclasses.replace(sample, kind=kind, area=area)
        for sample, kind, area in zip(made.samples, kinds, areas, strict=True)
    ]
    for rows in made.rows.values():
        rows[:, 1], rows[:, 2] = np.array(ious), 100
    return dataclasses.replace(made, samples=samples)


def test_the_published_tables_are_those_of_the_samples(headline):
    assert headline.check() == []


def test_tables_by_hand_and_replaced_by_what_is_added_anew(headline, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- vhr val -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(headline, "ROOT", tmp_path)
    monkeypatch.setattr(headline, "PAGES", (page,))
    monkeypatch.setattr(headline, "RESULTS", tmp_path / "vhr.parquet")
    kinds, areas = ["class", "place", "place", "ordinal"], [2000, 999, 1000, 10]
    runs = [
        ("first", [90, 40, 60, 10], {"seed": 1}),  # replaced below
        ("first", [100, 50, 60, 10], {"seed": 1}),  # mean 55
        ("first", [90, 50, 50, 10], {"seed": 2}),  # mean 50
        ("second", [90, 60, 60, 30], {"seed": 1}),  # mean 60
        ("second", [0, 0, 0, 0], {"seed": 1, "split": "test"}),  # another split
    ]
    for number, (row, ious, about) in enumerate(runs):
        folder = tmp_path / str(number)
        write_samples(folder, evaluation(ious, kinds, areas, **{"split": "val"} | about))
        headline.add(row, folder)
    assert len(pq.read_table(tmp_path / "vhr.parquet")) == 16
    assert headline.check() == ["page.md"]
    assert headline.check(write=True) == ["page.md"]
    assert headline.check() == []
    lines = page.read_text().splitlines()
    head = "| | mIoU | seeds | Pr@0.5 | Pr@0.9 | class (1) | place (2) | extreme (0) | size (0) | ordinal (1) "
    assert lines[2] == head + "| relation (0) | < 1,000 px (2) |"
    # first: deviation of 55 and 50 is 5 / sqrt(2); 6 of 8 are 0.5 or more, 2 are 0.9 or more
    assert lines[4].startswith("| second | 60.0 | 1 | 75.0 | 25.0 | 90.0 | 60.0 | - | - | 30.0 | - | 45.0 |")
    assert lines[5].startswith("| first | 52.5 ± 3.5 | 2 | 75.0 | 25.0 | 95.0 | 52.5 | - | - | 10.0 | - | 30.0 |")
    assert (lines[0], lines[6:]) == ("before", ["<!-- end -->", "after"])
    for change in ("| 61.0 | 1 |", ""):
        page.write_text(page.read_text().replace("| 60.0 | 1 |", change))
        assert headline.check() == ["page.md"]
    page.write_text("no table")
    assert headline.check() == ["page.md"]
