import re
from fractions import Fraction
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4eca.evaluation.metrics import summarise
from s4eca.evaluation.page.figures import (
    THRESHOLDS,
    count_ious,
    draw_categories,
    draw_histograms,
    draw_precision,
    precision_curve,
)
from s4eca.evaluation.protocols import PROTOCOLS

pairs = st.integers(0, 3000).flatmap(lambda union: st.tuples(st.integers(0, union), st.just(union)))


def as_rows(counts: list[tuple[int, int]]) -> np.ndarray:
    rows = np.zeros((len(counts), 6), np.int64)
    for place, (intersection, union) in enumerate(counts):
        rows[place, :4] = place, intersection, union, max(intersection, 1)
    return rows


def exact_iou(protocol: str, intersection: int, union: int) -> Fraction:
    if protocol == "detris":
        return Fraction(intersection) / (union + Fraction(1, 10**6))
    return Fraction(intersection, union) if union else Fraction(0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(counts=st.lists(pairs, max_size=30))
@settings(max_examples=40)
def test_bins_by_exact_arithmetic(protocol, counts):
    counts = [*counts, (1, 20), (3, 20), (7, 20), (19, 20), (5, 5)]
    expected = [0] * 20
    for intersection, union in counts:
        expected[min(int(exact_iou(protocol, intersection, union) * 20), 19)] += 1
    counted = count_ious(as_rows(counts), protocol)
    assert counted.tolist() == expected
    assert counted.sum() == len(counts)


@pytest.mark.parametrize("protocol", ["lavt", "original"])
@given(counts=st.lists(pairs, min_size=1, max_size=30))
@settings(max_examples=40)
def test_curve_by_exact_arithmetic(protocol, counts):
    counts = [*counts, *((percent, 100) for percent in (7, 29, 55, 57, 58, 70, 100))]
    ious = [exact_iou(protocol, *pair) for pair in counts]
    expected = [sum(iou >= Fraction(percent, 100) for iou in ious) / len(ious) for percent in range(1, 101)]
    assert precision_curve(as_rows(counts), protocol).tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_curve_meets_the_table_at_its_five_points_ties_included(protocol):
    rng = np.random.default_rng(1)
    union = rng.integers(1, 90, 3000) * 10
    tied = as_rows(list(zip((union // 10 * rng.integers(0, 11, 3000)).tolist(), union.tolist(), strict=True)))
    curve = dict(zip(THRESHOLDS.tolist(), precision_curve(tied, protocol), strict=True))
    assert tuple(curve[percent] for percent in (50, 60, 70, 80, 90)) == summarise(tied, protocol).precision


def test_curve_of_no_samples():
    assert np.isnan(precision_curve(as_rows([]), "lavt")).all()


def element(svg: str, id: str) -> ElementTree.Element:
    (found,) = (item for item in ElementTree.fromstring(svg).iter() if item.get("id") == id)
    return found


def points(group: ElementTree.Element) -> np.ndarray:
    """The corners (N, 2) of the first path of a group."""
    path = group.find(".//path")
    assert path is not None
    numbers = re.findall(r"-?[\d.]+", path.attrib["d"])
    return np.array(numbers, float).reshape(-1, 2)


def frame(svg: str, place: int = 0) -> tuple[float, float, float, float]:
    """Left, top, width and height of the plotting area."""
    rect = ElementTree.fromstring(svg).findall(".//clipPath/rect")[place]
    left, top, width, height = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
    return left, top, width, height


def test_bars_of_the_histogram_are_as_high_as_their_counts():
    counts = {"lavt": np.arange(20) * 100, "detris": np.array([0, 7] * 10)}
    svg = draw_histograms(counts, {"lavt": 0.5, "detris": None})
    for protocol, heights in counts.items():
        drawn = []
        for number in range(20):
            bar = element(svg, f"histogram-bar-{protocol}-{number}")
            corners = points(bar)
            drawn.append(np.ptp(corners[:, 1]))
            expected = f"IoU {number * 5} to {number * 5 + 5} %: {heights[number]:,} samples"
            assert bar.findtext("title") == expected
        assert np.array(drawn) == pytest.approx(heights * (max(drawn) / heights.max()), abs=0.01)
    lines = re.findall(r"stroke: currentColor; stroke-width: 1.2", svg)
    assert len(lines) == 1  # of the mean that there is
    assert 'aria-label="Histograms of the IoU under lavt, detris"' in svg


def test_curves_run_through_their_values():
    curves = {"lavt": np.linspace(1, 0, 100), "original": np.linspace(0.9, 0.2, 100) ** 2}
    svg = draw_precision(curves)
    left, top, width, height = frame(svg)
    for protocol, curve in curves.items():
        corners = points(element(svg, f"precision-curve-{protocol}"))
        assert corners[:, 0] == pytest.approx(left + width * THRESHOLDS / 100, abs=0.01)
        assert corners[:, 1] == pytest.approx(top + height * (1 - curve), abs=0.01)
        uses = element(svg, f"precision-curve-{protocol}").findall(".//use")
        assert [float(use.attrib["x"]) for use in uses] == pytest.approx(
            [left + width * share for share in (0.5, 0.6, 0.7, 0.8, 0.9)], abs=0.01
        )
    strokes = [element(svg, f"precision-curve-{protocol}").find(".//path").attrib["style"] for protocol in curves]
    assert "var(--series-1)" in strokes[0]
    assert "var(--series-2)" in strokes[1]
    assert "dash" in strokes[1]  # told apart without colour too


def test_a_bar_per_category_sorted_and_as_long_as_its_score():
    scores = {f"class {number}": (number / 26, 1000 + number) for number in range(26)} | {"unseen": (float("nan"), 0)}
    svg = draw_categories(scores)
    texts = [item.text for item in ElementTree.fromstring(svg).iter("text")]
    lengths = []
    for number in range(27):
        bar = element(svg, f"categories-bar-{number}")
        lengths.append(np.ptp(points(bar)[:, 0]))
    assert len(re.findall('id="categories-bar-', svg)) == 27
    expected = [number / 26 for number in range(25, -1, -1)]
    assert lengths[26] == 0
    assert np.array(lengths[:26]) == pytest.approx(np.array(expected) * lengths[0] / expected[0], abs=0.01)
    assert [text for text in texts if text.startswith("class ")] == [f"class {number}" for number in range(25, -1, -1)]
    assert "1,025" in texts
    assert "50.0" in texts  # class 13
    assert element(svg, "categories-bar-0").findtext("title") == "class 25: mIoU 96.2 %, 1,025 samples"
    assert element(svg, "categories-bar-26").findtext("title") == "unseen: mIoU \N{EN DASH} %, 0 samples"


def test_names_are_letters_and_nothing_else():
    names = {"a $x_1$ <b>&\"'": (0.5, 1), "$\\frac{1}$": (0.4, 1), "bad\x00one": (0.3, 1), "long " * 20: (0.2, 1)}
    svg = draw_categories(names)
    texts = [item.text for item in ElementTree.fromstring(svg.replace("\x00", "")).iter("text")]
    assert "a $x_1$ <b>&\"'" in texts
    assert "$\\frac{1}$" in texts
    assert "bad one" in texts
    assert max(len(text) for text in texts) == 26
    assert "<b>" not in svg


def test_figures_fit_into_one_page():
    curve = {"lavt": np.linspace(1, 0, 100)}
    drawn = [
        draw_histograms({"lavt": np.arange(20)}, {"lavt": 0.3}),
        draw_precision(curve),
        draw_categories({"ship": (0.4, 3)}, "categories-lavt"),
        draw_categories({"ship": (0.4, 3)}, "categories-detris"),
    ]
    page = "".join(drawn)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    assert "http" not in page
    assert "<style" not in page
    assert "font-family" not in page
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", page))
    assert colours <= {"none", "currentColor", "var(--line)", "var(--muted)", "var(--series-1)"}
    assert draw_precision(curve) == drawn[1]  # the same numbers, the same bytes
