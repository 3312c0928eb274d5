import json

import pytest
import typer
from typer.testing import CliRunner

from made_evaluation import make_evaluation
from s4eca.cli.compare import compare
from s4eca.errors import S4ecaError
from s4eca.evaluation.compare import compare as pair
from s4eca.evaluation.results import write_samples


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(compare)
    return app


@pytest.fixture
def runs(tmp_path):
    """Two runs on the same 40 samples on 20 images; the second one found a few pixels more of every target."""
    a, b = (make_evaluation(40, no_target=4, name=name, seed=seed) for name, seed in (("one", 3), ("two", None)))
    for rows in b.rows.values():
        rows[:, 1] += (rows[:, 3] - rows[:, 1]) // 2
    for name, evaluation in (("a", a), ("b", b)):
        write_samples(tmp_path / name, evaluation)
    return tmp_path, a, b


def invoke(app, *arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_it_prints_percent_with_signs_for_every_protocol(app, runs):
    folder, a, b = runs
    printed = invoke(app, str(folder / "a"), str(folder / "b" / "samples.parquet"))
    lines = printed.splitlines()
    assert lines[0] == f"A: one, backbone not stated, seed 3 ({folder / 'a'})"
    assert lines[1] == f"B: two, backbone not stated ({folder / 'b' / 'samples.parquet'})"
    assert lines[2] == "They differ in name (one; two), seed (3; none)."
    assert lines[3] == "44 samples on 22 images; 2,000 bootstrap replicates over images, seed 0"
    comparison = pair(a, b)
    rows = [line.split() for line in lines]
    assert ["%", "A", "B", "B", "-", "A", "95%", "from", "to", "≤", "0", "p"] in rows
    for protocol, paired in comparison.protocols.items():
        head = f"{protocol}: B better on {paired.wins} samples, equal on {paired.ties}, worse on {paired.losses}"
        assert any(line.strip() == head for line in lines)
        score = paired.scores["mIoU"]
        percent = [f"{100 * value:.2f}" for value in (score.a, score.b)]
        signed = [f"{100 * value:+.2f}" for value in (score.difference, score.low, score.high)]
        assert ["mIoU", *percent, *signed, f"{score.not_positive:.4f}", f"{score.p:.4f}"] in rows
        assert signed[0].startswith("+")
    assert [row[0] for row in rows if row].count("N-acc") == 3
    assert max(len(line) for line in lines[4:]) <= 80


def test_options_reach_the_comparison_and_the_file(app, runs):
    folder, _, _ = runs
    file = folder / "new" / "comparison.json"
    printed = invoke(
        app, str(folder / "a"), str(folder / "b"), "--protocol", "original", "--json", str(file), "--replicates", "50",
        "--seed", "7", "--confidence", "0.9",
    )  # fmt: skip
    assert "90% from" in printed
    assert "50 bootstrap replicates over images, seed 7" in printed
    assert printed.splitlines()[-1] == str(file)
    stored = json.loads(file.read_text())
    assert stored["bootstrap"] == {"replicates": 50, "seed": 7, "confidence": 0.9}
    assert list(stored["protocols"]) == ["original"]
    score = stored["protocols"]["original"]["scores"]["oIoU"]
    assert score["low"] <= score["difference"] <= score["high"]


def test_errors_are_those_of_the_comparison(app, runs):
    folder, _, _ = runs
    write_samples(folder / "other", make_evaluation(41, no_target=4))
    with pytest.raises(S4ecaError, match="other samples, 1 in the second one only"):
        invoke(app, str(folder / "a"), str(folder / "other"))
    with pytest.raises(S4ecaError, match="There is no"):
        invoke(app, str(folder / "a"), str(folder / "nowhere"))
    with pytest.raises(S4ecaError, match="0 replicates"):
        invoke(app, str(folder / "a"), str(folder / "b"), "--replicates", "0")
