import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from s4eca.errors import S4ecaError
from s4eca.evaluation.tables.build import build_tables
from s4eca.evaluation.tables.plot import draw_plot, plot_notes, write_plot
from s4eca.evaluation.tables.published import SCORES, load_published
from s4eca.evaluation.tables.runs import Run

MIB = 2**20


def make_run(name, percent, kept, miou, seed=0, precision="32-true") -> Run:
    cost = None
    if kept is not None:
        cost = {"saved_bytes": {"step": 2 * kept * MIB}, "batch_size": 2, "device": "cpu", "precision": precision}
    about = {"name": name, "dataset": "rrsis_d", "split": "test", "seed": seed, "image_size": 480, "cost": cost}
    about["method_share"] = None if percent is None else percent / 100
    scores = {**dict.fromkeys(SCORES, 0.25), "mIoU": miou, "oIoU": 0.75, "n": 3481, "n_empty": 0}
    return Run(Path(f"{name}{seed}/metrics.json"), about, {"lavt": scores})


def table_of(*runs):
    (table,) = build_tables(runs, load_published("rrsis_d", "test"))
    return table


def points_of(axis) -> dict[float, float]:
    """Value by place of the marked points."""
    (dots,) = (line for line in axis.get_lines() if line.get_marker() == "o")
    return dict(zip(np.round(dots.get_xdata(), 4).tolist(), np.round(dots.get_ydata(), 4).tolist(), strict=True))


def ticks_of(axis) -> dict[str, float]:
    return {axis.xaxis.get_major_formatter()(tick, 0): float(tick) for tick in axis.get_xticks()}


COMPARISON = [
    make_run("full", 100, 15, 0.65),
    make_run("lora", 2.5, 10, 0.60),
    make_run("lora", 2.5, 10, 0.62, seed=1),
    make_run("frozen", 0, 5, 0.50),
]


def test_points_stand_at_cost_and_mean():
    budget, memory = draw_plot(table_of(*COMPARISON)).axes
    # published results have neither cost and are not among them
    assert points_of(memory) == {15.0: 65.0, 10.0: 61.0, 5.0: 50.0}
    zero = round(ticks_of(budget)["0"], 4)
    assert points_of(budget) == {100.0: 65.0, 2.5: 61.0, zero: 50.0}
    # sample deviation of 60 and 62
    (bars,) = memory.collections
    lengths = [round(float(np.ptp(segment[:, 1])), 4) for segment in bars.get_segments()]
    assert sorted(lengths) == [0.0, 0.0, round(2 * 2**0.5, 4)]


def test_axes_say_what_they_show():
    figure = draw_plot(table_of(*COMPARISON), "oIoU")
    budget, memory = figure.axes
    assert budget.get_ylabel() == "oIoU (%)"
    assert budget.get_xlabel() == "method's learned parameters (% of the towers)"
    assert memory.get_xlabel() == "memory kept for the backward pass (MiB per sample)"
    assert set(points_of(memory).values()) == {75.0}
    written = [text.get_text() for text in figure.texts]
    assert written == ["RRSIS-D test, protocol lavt", "mean and sample deviation over seeds"]
    for panel in figure.axes:
        assert {text.get_text() for text in panel.texts} == {"full", "lora", "frozen"}


def test_a_wide_range_is_logarithmic_and_nothing_has_its_own_place():
    budget, memory = draw_plot(table_of(*COMPARISON)).axes
    assert (budget.get_xscale(), memory.get_xscale()) == ("log", "linear")
    ticks = ticks_of(budget)
    assert 0 < ticks["0"] < 0.6 * 2.5
    assert ticks["100"] == pytest.approx(100)
    assert max(ticks.values()) == pytest.approx(100)
    low, high = budget.get_xlim()
    assert low < ticks["0"] < 100 < high
    # exactly ten times is not more
    budget, _ = draw_plot(table_of(make_run("a", 1, 1, 0.5), make_run("b", 10, 1, 0.6))).axes
    assert budget.get_xscale() == "linear"
    assert points_of(budget) == {1.0: 50.0, 10.0: 60.0}


def test_all_at_nothing_and_a_single_run_can_be_drawn():
    budget, memory = draw_plot(table_of(make_run("a", 0, 4, 0.5), make_run("b", 0, 5, 0.6))).axes
    assert ticks_of(budget)["0"] == 0
    assert set(points_of(budget)) == {0.0}
    assert points_of(memory) == {4.0: 50.0, 5.0: 60.0}
    figure = draw_plot(table_of(make_run("a", 2, 4, 0.5)))
    assert points_of(figure.axes[0]) == {2.0: 50.0}
    assert "deviation" not in " ".join(text.get_text() for text in figure.texts)


def test_what_is_not_known_is_left_out_and_named():
    table = table_of(make_run("old", 3, None, 0.5), make_run("masks", None, None, 0.7), make_run("new", 2, 4, 0.6))
    assert plot_notes(table, "mIoU") == [
        "Not drawn against method's learned parameters, as that or mIoU is not known: masks.",
        "Not drawn against memory kept for the backward pass, as that or mIoU is not known: masks, old.",
    ]
    budget, memory = draw_plot(table).axes
    assert points_of(budget) == {3.0: 50.0, 2.0: 60.0}
    assert points_of(memory) == {4.0: 60.0}
    unscored = table_of(make_run("a", 2, 4, None), make_run("b", 2, 4, 0.5))
    assert [sentence.partition(": ")[2] for sentence in plot_notes(unscored, "mIoU")] == ["a.", "a."]


def test_memory_that_was_not_measured_alike_is_warned_of():
    alike = [make_run("a", 2, 4, 0.5), make_run("b", 2, 5, 0.6)]
    assert plot_notes(table_of(*alike), "mIoU") == []
    (note,) = plot_notes(table_of(*alike, make_run("c", 2, 3, 0.4, precision="bf16-mixed")), "mIoU")
    assert note == (
        "Memory was not measured alike, and depends on it: cpu, 32-true, batch size 2; cpu, bf16-mixed, batch size 2."
    )


def test_a_panel_of_nothing_says_so_and_two_are_refused():
    _, memory = draw_plot(table_of(make_run("old", 3, None, 0.5))).axes
    assert [text.get_text() for text in memory.texts] == ["not known of any run"]
    with pytest.raises(S4ecaError, match="There is nothing to plot: no run has mIoU and its method's share"):
        draw_plot(table_of(make_run("masks", None, None, 0.5)))


def test_names_do_not_cover_one_another_or_points():
    runs = [make_run(f"method_{number}", 2.4, 10 + number % 3, 0.55 + 0.002 * number) for number in range(10)]
    figure = draw_plot(table_of(*runs, make_run("full", 100, 40, 0.65), make_run("frozen", 0, 5, 0.4)))
    for panel in figure.axes:
        boxes = [text.get_window_extent() for text in panel.texts]
        assert len(boxes) == 12
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[number + 1 :])
            assert box.x0 >= panel.bbox.x0 - 1
            assert box.x1 <= panel.bbox.x1 + 1
        points = panel.transData.transform(list(points_of(panel).items()))
        assert not any(box.contains(*point) for box in boxes for point in points)


def test_names_of_any_kind_are_drawn_as_they_are(tmp_path):
    names = ["a $x_1$", "b\x07 & <c>", "d" * 50]
    figure = draw_plot(table_of(*(make_run(name, 2, 4 + at, 0.5 + at / 50) for at, name in enumerate(names))))
    written = {text.get_text() for text in figure.axes[0].texts}
    assert written == {"a $x_1$", "b  & <c>", "d" * 31 + "…"}
    assert not any(text.get_parse_math() for text in figure.axes[0].texts)
    write_plot(figure, tmp_path / "plot.svg")
    ElementTree.parse(tmp_path / "plot.svg")


@pytest.mark.parametrize(
    ("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")]
)
def test_the_ending_decides_and_the_same_runs_are_the_same_file(tmp_path, ending, start):
    for name in "ab":
        write_plot(draw_plot(table_of(*COMPARISON)), tmp_path / f"{name}.{ending}")
    first, second = ((tmp_path / f"{name}.{ending}").read_bytes() for name in "ab")
    assert first.startswith(start)
    assert first == second
    assert b"Date" not in first
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    figure = draw_plot(table_of(make_run("a", 2, 4, 0.5)))
    with pytest.raises(S4ecaError, match=re.escape("plot.bmp does not end in .png, .svg, .pdf")):
        write_plot(figure, tmp_path / "plot.bmp")
    with pytest.raises(S4ecaError, match=re.escape(f"{tmp_path}/none/plot.png cannot be written")):
        write_plot(figure, tmp_path / "none" / "plot.png")
