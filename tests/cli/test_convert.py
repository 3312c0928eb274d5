import typer
from typer.testing import CliRunner

from layouts import write_jsonl, write_refsegrs, write_rrsis_d
from s4eca.cli.convert import convert
from s4eca.data import read_jsonl, read_rrsis_d
from s4eca.errors import S4ecaError

app = typer.Typer()
app.command()(convert)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_prints_what_was_written(tmp_path):
    write_refsegrs(tmp_path / "a")
    result = run(tmp_path / "a", tmp_path / "b", "--to", "jsonl")
    assert result.exit_code == 0, result.output
    expected = f"{tmp_path}/b: 4 train, 2 val, 2 test references to 8 images, from refsegrs to jsonl"
    assert " ".join(result.output.split()) == expected
    assert [item.id for item in read_jsonl(tmp_path / "b", "val")] == ["45", "46"]
    assert (tmp_path / "b/images/45.tif").is_symlink()


def test_options(tmp_path):
    def nothing(refs, _):
        refs[4].update(no_target=True, ann_id=-1)

    write_rrsis_d(tmp_path / "a", annotations="ris_lad", images="images/ris_lad/JPEGImages", edit=nothing)
    write_jsonl(tmp_path / "a")
    result = run(
        tmp_path / "a", tmp_path / "b", "--to", "rrsis_d", "--from", "refer", "--split", "val", "--split", "test",
        "--images", "copy", "--option", "dataset=ris_lad", "--option", "split_by=unc",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "2 val, 2 test references to 4 images, from refer to rrsis_d" in " ".join(result.output.split())
    assert "1 of them have no target" in result.output
    items = read_rrsis_d(tmp_path / "b", "val", expected={})
    assert [(item.id, item.no_target) for item in items] == [("113", True), ("116", False)]
    assert not items[0].image.is_symlink()


def test_errors(tmp_path):
    result = run(tmp_path, tmp_path / "b", "--to", "jsonl")
    assert isinstance(result.exception, S4ecaError)
    assert "no layout that is known" in str(result.exception)
    result = run(tmp_path, tmp_path / "b", "--to", "jsonl", "--option", "dataset")
    assert "is no KEY=VALUE" in str(result.exception)
    assert run(tmp_path, tmp_path / "b").exit_code == 2  # --to is needed
    assert list(tmp_path.iterdir()) == []
