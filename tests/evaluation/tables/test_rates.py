"""The learning rates in a table: a column where they differ or were to be chosen, and how each was chosen."""

import csv
import io

import pytest

from evaluation.tables.test_build import make_published, make_run, notes_of
from s4eca.evaluation.tables.build import build_tables
from s4eca.evaluation.tables.formats import to_csv, to_latex, to_markdown

BY = "val/mIoU, 150 steps, seed 0"
CHOSEN = {"lr": 0.002, "val": {"0.0005": 0.3, "0.002": 0.5, "0.008": 0.4}, "by": BY}
STATED = {"lr": 1e-5, "val": None, "by": None}


def tables(*runs, published=(), **options):
    return build_tables(runs, published, **options)


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if f"**{name}**" in line]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_one_rate_of_all_runs_needs_no_column():
    alike = tables(make_run(name="a", lr=1e-4), make_run(name="b", lr=1e-4), make_run(name="c"))
    assert "lr" not in to_markdown(alike)
    assert "lr" not in next(csv.reader(io.StringIO(to_csv(alike))))


def test_other_rates_get_one():
    text = to_markdown(tables(make_run(name="a", lr=1e-4), make_run(name="b", lr=0.002), make_run(name="c")))
    assert [row(text, name)[1] for name in "abc"] == ["0.0001", "0.002", "–"]  # noqa: RUF001
    assert "Learning rate (lr) stated, no choice on val is recorded: a, b, c." in text


@pytest.mark.parametrize("cost", [False, True])
def test_a_choice_is_shown_with_what_it_was_chosen_from(cost):
    runs = [
        make_run(0.6, name="lora", lr=0.002, lr_choice=CHOSEN),
        make_run(0.5, name="mona", lr=0.002, lr_choice=CHOSEN),
        make_run(0.4, name="full", lr=1e-5, lr_choice=STATED),
        # its rate was changed by hand
        make_run(0.3, name="bitfit", lr=0.1, lr_choice=CHOSEN),
    ]
    text = to_markdown(tables(*runs, cost=cost))
    assert [row(text, name)[1] for name in ("lora", "mona", "full", "bitfit")] == ["0.002", "0.002", "1e-05", "0.1"]
    assert f"Learning rate (lr) chosen from 0.0005, 0.002, 0.008 by {BY}: lora, mona." in text
    assert "Learning rate (lr) stated, no choice on val is recorded: full, bitfit." in text
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO(to_csv(tables(*runs, cost=cost))))}
    assert (lines["lora"]["lr"], lines["lora"]["lr chosen from"]) == ("0.002", "0.0005 0.002 0.008")
    assert (lines["full"]["lr"], lines["full"]["lr chosen from"]) == ("1e-05", "")


def test_equal_rates_that_were_to_be_chosen_are_shown_too():
    notes = notes_of([make_run(name="a", lr=1e-5, lr_choice=STATED), make_run(name="b", lr=1e-5, lr_choice=STATED)])
    assert "no choice on val is recorded: a, b" in notes


def test_published_rows_have_none_and_latex_has_as_many_columns_as_cells():
    runs = make_run(name="a", lr=1e-4), make_run(name="b", lr=0.002)
    found = tables(*runs, published=[make_published()])
    assert [cell.strip() for cell in to_markdown(found).splitlines()[4].split("|")][1:3] == ["Other", "–"]  # noqa: RUF001
    text = to_latex(found)
    columns = text.partition("begin{tabular}{")[2].partition("}")[0]
    assert {line.count("&") + 1 for line in text.splitlines() if line.endswith(r"\\")} == {len(columns)}
