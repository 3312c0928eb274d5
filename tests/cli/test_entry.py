"""What no config can be composed of is explained by every command alike; what is printed runs when it is pasted."""

import shlex
import sys

import pytest
import typer
from typer.testing import CliRunner

import s4eca.cli.main
from s4eca.cli import dgl_fill, dgl_recall, dgl_sweep
from s4eca.cli import eval as evaluation
from s4eca.cli import train as training
from s4eca.cli.entry import _explain
from s4eca.cli.environment import command_line
from s4eca.cli.profile import sort_arguments
from s4eca.cli.sweep import parse

PATH = "/数据/RRSIS (1)"
WORD = """'data.root="/数据/RRSIS (1)"'"""


@pytest.mark.parametrize("command", [training, evaluation, dgl_fill, dgl_recall, dgl_sweep])
@pytest.mark.parametrize("mode", [[], ["--multirun"]])
def test_hydras_commands_explain_a_path(monkeypatch, capsys, command, mode):
    monkeypatch.setattr(sys, "argv", ["command", *mode, "data=rrsis_d", f"data.root={PATH}"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: data.root={PATH} ")
    assert WORD in line


@pytest.mark.parametrize(
    "words",
    [
        ["profile"],
        ["score", "."],
        ["sweep", "study=a", "n_trials=1"],
        ["weights", "fetch", "out=kept"],
        ["doctor"],
    ],
)
def test_other_commands_explain_it_too(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(s4eca.cli.main.app, [*words, "data=rrsis_d", f"data.root={PATH}"])
    said = result.output if words == ["doctor"] else str(result.exception)
    assert f"data.root={PATH} has characters" in said
    assert WORD in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ('ckpt="/runs/${x}"', "ckpt cannot be had (Interpolation key 'x' not found)"),
        ('hydra.run.dir="/runs/${x}"', "hydra.run.dir cannot be had (Interpolation key 'x' not found)"),
        ("modle=1", "have no key modle: see"),  # and not that +modle=1 would do, which is refused next
        ("data=nowhere", "data/nowhere"),
        ("data=null", "the config cannot be composed"),
    ],
)
def test_what_no_config_is_composed_of_is_a_sentence(monkeypatch, capsys, given, named):
    monkeypatch.setattr(sys, "argv", ["eval.py", given])
    with pytest.raises(SystemExit) as ended:
        evaluation.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert named in line


def test_the_sentence_of_a_submitted_job_is_what_its_sweep_says():
    uncompleted = type("UncompletedJobError", (RuntimeError,), {"__module__": "submitit.core.utils"})
    output = "Job 1 has not produced any output\nError stream produced:\n---\nerror: the image of 3 is damaged.\n"
    assert _explain(uncompleted(output), "train").endswith("did not run through: the image of 3 is damaged.")
    assert _explain(uncompleted("Job 1 was killed"), "train") is None
    assert _explain(ValueError("a bug"), "train") is None


def test_a_commands_own_keys_take_both_forms(tmp_path):
    assert (
        parse(["study=a", "folder=/a (1)"], status=False).folder
        == parse(["study=a", 'folder="/a (1)"'], status=False).folder
    )
    assert sort_arguments(["out=/a (1)"])[2] == sort_arguments(['out="/a (1)"'])[2]


@pytest.mark.parametrize(
    ("first", "wanted"),
    [("/x/eval.py", ["python", "eval.py"]), ("s4eca eval", ["s4eca", "eval"]), ("/x/bin/s4eca", ["s4eca"])],
)
def test_the_command_of_a_report_runs_when_pasted(monkeypatch, first, wanted):
    given = ['ckpt="a (1)/x"', "split=val"]
    monkeypatch.setattr(sys, "argv", [first, *given])
    assert shlex.split(command_line()) == [*wanted, *given]


def test_ctrl_c_has_its_status_in_every_command(monkeypatch, capsys):
    app = typer.Typer()

    @app.command()
    def audit():
        raise KeyboardInterrupt

    monkeypatch.setattr(s4eca.cli.main, "app", app)
    monkeypatch.setattr(sys, "argv", ["s4eca"])
    with pytest.raises(SystemExit) as ended:
        s4eca.cli.main.main()
    assert ended.value.code == 130
    assert "Traceback" not in capsys.readouterr().err
