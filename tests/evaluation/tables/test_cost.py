# ruff: noqa: RUF001
import csv
import io
import json
import re
from pathlib import Path

import pytest

from s4eca.errors import S4ecaError
from s4eca.evaluation.tables.build import build_tables
from s4eca.evaluation.tables.cost import format_cost, read_costs
from s4eca.evaluation.tables.formats import to_csv, to_latex, to_markdown
from s4eca.evaluation.tables.published import SCORES, PublishedResult
from s4eca.evaluation.tables.runs import Run, find_runs

MIB, GIB = 2**20, 2**30


def make_cost(kept=24 * MIB, batch_size=8, peak=None, median=0.2, **other) -> dict:
    return {
        "parameters": {"towers": 100_000_000, "method": 2_400_000, "head": 1_100_000},
        "percent": 2.4,
        "saved_bytes": {"towers_and_method": 2 * MIB, "step": kept},
        "peak_bytes": peak,
        "step_seconds": {"median": median, "q1": 0.1, "q3": 0.9, "steps": 200},
        "batch_size": batch_size,
        "device": "cpu",
        "precision": "32-true",
        "placement": "inside",
        "grad_checkpointing": "none",
        **other,
    }


def make_run(name="lora", seed=0, cost=None, miou=0.5, **about) -> Run:
    about = {
        **{"name": name, "dataset": "rrsis_d", "split": "test", "seed": seed, "image_size": 480},
        **{"method_share": 0.024, "learned_parameters": {"method": 2_400_000, "fusion": 100_000, "decoder": 1_000_000}},
        **{"cost": cost, "recipe": name, "backbones": {"vision": {"name": "Swin", "sha256": "ab"}}},
        **about,
    }
    scores = {**dict.fromkeys(SCORES, 0.25), "oIoU": 0.75, "mIoU": miou, "n": 3481, "n_empty": 0}
    return Run(Path(f"{name}{seed}/metrics.json"), about, {"lavt": scores})


PUBLISHED = PublishedResult(
    **{"method": "LAVT", "dataset": "rrsis_d", "split": "test", "scores": {**dict.fromkeys(SCORES), "mIoU": 61.04}},
    **{"reported_in": "a paper", "protocol": "lavt", "input_size": 480, "selection": "val", "samples": 3481},
    **{"training": "fine-tuned", "remark": ""},
)


def table_of(runs, published=(), **options):
    (table,) = build_tables(runs, published, cost=True, **options)
    return table


def notes_of(runs) -> str:
    return "\n".join(text for _, text in table_of(runs).notes)


# 24 and 26 MiB of 8 samples: 3 and 3.25 MiB each, mean 3.125, deviation 0.25/sqrt(2) = 0.177; 1 and 2 GiB: mean 1.5,
# deviation 0.707; 200 and 220 ms: mean 210, deviation 14.1; 2.4 + 0.1 + 1 = 3.5 M learned
SEEDS = [
    make_run(seed=0, cost=make_cost(peak=GIB)),
    make_run(seed=1, cost=make_cost(26 * MIB, peak=2 * GIB, median=0.22), miou=0.52),
]


def test_costs_of_seeds_are_merged():
    (row,) = table_of(SEEDS).rows
    assert row.costs["percent"] == (pytest.approx(2.4), None)
    assert row.costs["learned"] == (pytest.approx(3.5), None)
    assert row.costs["kept"] == pytest.approx((3.125, 0.1767767))
    assert row.costs["peak"] == pytest.approx((1.5, 0.7071068))
    assert row.costs["step"] == pytest.approx((210.0, 14.1421356))
    assert row.scores["mIoU"] == pytest.approx((51.0, 1.4142136))


def test_markdown_of_costs():
    lines = to_markdown([table_of(SEEDS, [PUBLISHED])]).splitlines()
    assert lines[0] == "### RRSIS-D test, protocol lavt, cost, and scores in percent"
    assert [re.split(r" *\| *", line)[1:-1] for line in (lines[2], lines[4], lines[5])] == [
        [
            *("method", "% of towers", "learned M", "kept MiB/sample", "peak GiB", "step ms"),
            *("mIoU", "oIoU", "source"),
        ],
        [*("LAVT", "–", "–", "–", "–", "–"), "61.04", "–", "(1)"],
        [*("**lora**", "2.40", "3.50", "3.12±0.18", "1.50±0.71", "210±14"), "51.00±1.41", "75.00±0.00", "2 seeds"],
    ]


def test_latex_of_costs():
    text = to_latex([table_of(SEEDS, [PUBLISHED])])
    assert r"\begin{tabular}{lrrrrrrrl}" in text
    assert r"method & \% of towers & learned M & kept MiB/sample & peak GiB & step ms & mIoU & oIoU & source \\" in text
    assert r"\textbf{lora} & 2.40 & 3.50 & 3.12{\scriptsize$\pm$0.18} & 1.50{\scriptsize$\pm$0.71} & 210{\s" in text
    assert r"LAVT & -- & -- & -- & -- & -- & 61.04 & -- & (1) \\" in text


def test_csv_of_costs():
    published, run = csv.DictReader(io.StringIO(to_csv([table_of(SEEDS, [PUBLISHED])])))
    assert (run["% of towers"], run["learned M"], run["step ms"], run["step ms deviation"]) == (
        *("2.4", "3.5"),
        *("210", "14.1421"),
    )
    assert (run["kept MiB/sample"], run["kept MiB/sample deviation"], run["peak GiB"]) == ("3.125", "0.176777", "1.5")
    assert run["measured on"] == "cpu, 32-true, batch size 8"
    assert run["Pr@0.5"] == "25.00"
    assert {published[key] for key in ("% of towers", "step ms", "step ms deviation", "measured on")} == {""}


def test_the_peak_has_a_column_where_a_gpu_measured_one():
    assert table_of(SEEDS).costs == ["percent", "learned", "kept", "peak", "step"]
    assert table_of([make_run(cost=make_cost())]).costs == ["percent", "learned", "kept", "step"]


def test_the_score_that_orders_is_shown():
    assert table_of(SEEDS).scores == ("mIoU", "oIoU")
    assert table_of(SEEDS, sort="oIoU").scores == ("oIoU", "mIoU")
    assert table_of(SEEDS, sort="Pr@0.7").scores == ("Pr@0.7", "mIoU", "oIoU")


def test_a_table_without_costs_is_as_ever():
    (table,) = build_tables(SEEDS, [PUBLISHED])
    assert "of towers" not in to_markdown([table]) + to_latex([table]) + to_csv([table])


# ---- notes


def test_notes_name_what_was_measured_on():
    notes = notes_of([make_run(cost=make_cost()), make_run("mona", cost=make_cost())])
    assert "Memory and time of all rows: cpu, 32-true, batch size 8." in notes
    assert "only rows of the same" not in notes
    assert "Without memory and time" not in notes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "NVIDIA A100"}, "NVIDIA A100, 32-true, batch size 8: mona"),
        ({"batch_size": 4}, "cpu, 32-true, batch size 4: mona"),
        ({"precision": "bf16-mixed"}, "cpu, bf16-mixed, batch size 8: mona"),
    ],
)
def test_rows_that_were_not_measured_alike_are_warned_of(change, said):
    runs = [make_run(cost=make_cost()), make_run("mona", cost=make_cost(**change)), make_run("cola", cost=make_cost())]
    notes = notes_of(runs)
    assert "only rows of the same device, precision and batch size compare" in notes
    assert f"cpu, 32-true, batch size 8: lora, cola; {said}." in notes


def test_seeds_of_one_row_on_two_devices_are_warned_of_and_stay_merged():
    runs = [make_run(cost=make_cost()), make_run(seed=1, cost=make_cost(device="NVIDIA A100"))]
    assert len(table_of(runs).rows) == 1
    assert "cpu, 32-true, batch size 8: lora; NVIDIA A100, 32-true, batch size 8: lora." in notes_of(runs)
    assert table_of(runs).rows[0].measured == "cpu, 32-true, batch size 8; NVIDIA A100, 32-true, batch size 8"


def test_runs_without_cost_have_a_dash_and_a_note_how_to_get_it():
    runs = [make_run(cost=make_cost()), make_run("old"), make_run("half", cost=make_cost()), make_run("half", seed=1)]
    for absent in (None, ...):
        if absent is ...:
            del runs[1].about["cost"]  # as older evaluations
        assert "Without memory and time: old, half (1 of 2 seeds); a training run measures it" in notes_of(runs)
        rows = {row.label: row for row in table_of(runs).rows}
        assert rows["old"].costs["kept"] is None
        assert rows["old"].costs["percent"] == (pytest.approx(2.4), None)
        assert rows["half"].costs["kept"] == (3.0, None)


def test_evaluations_of_masks_know_no_cost_at_all():
    run = make_run(method_share=None, learned_parameters=None)
    assert set(table_of([run]).rows[0].costs.values()) == {None}
    assert "| **lora** |           – |         – |               – |       – | 50.00 | 75.00 | run    |" in to_markdown(
        [table_of([run])]
    )


def test_a_training_too_short_to_be_timed_has_no_time():
    assert read_costs(make_run(cost=make_cost(median=None)).about)["step"] is None


def test_checkpointing_tells_runs_of_one_name_apart():
    runs = [
        make_run(cost=make_cost(), recipe="a"),
        make_run(cost=make_cost(grad_checkpointing="block"), recipe="a2", seed=1),
    ]
    labels = {row.label for row in table_of(runs).rows}
    assert labels == {
        "lora (grad_checkpointing none, recipe a, seed 0)",
        "lora (grad_checkpointing block, recipe a2, seed 1)",
    }


# ---- numbers


@pytest.mark.parametrize(
    ("value", "deviation", "shown"),
    [
        (0.0, None, "0"),
        (100.0, None, "100"),
        (2.4, None, "2.40"),
        (0.05123, None, "0.0512"),
        (1234.5, 67.8, "1234±68"),
        (35.25, 0.04, "35.2±0.0"),
        (0.5, 0.25, "0.500±0.250"),
        (0.0, 0.0, "0±0"),
    ],
)
def test_three_digits_are_shown(value, deviation, shown):
    assert format_cost(value, deviation) == shown


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"cost": 3}, "cost = 3 instead of an object"),
        ({"cost": {}}, "cost.saved_bytes.step = None instead of an amount"),
        ({"cost": make_cost(kept=-1)}, "cost.saved_bytes.step = -1 instead of an amount"),
        ({"cost": make_cost(peak="2")}, "cost.peak_bytes = '2' instead of an amount"),
        ({"cost": make_cost(median=True)}, "cost.step_seconds.median = True instead of an amount"),
        ({"cost": make_cost(batch_size=0)}, "cost.batch_size = 0 instead of a count"),
        ({"method_share": "2 %"}, "method_share = '2 %' instead of a fraction"),
        ({"learned_parameters": {"method": None}}, "learned_parameters = {'method': None} instead of counts"),
    ],
)
def test_a_damaged_cost_is_named(tmp_path, about, message):
    run = make_run(**about)
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps({"about": run.about, "protocols": run.protocols}))
    with pytest.raises(S4ecaError, match=re.escape(f"{file} is damaged, it has {message}")):
        find_runs([file])
