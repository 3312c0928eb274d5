import json
import sys

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from layouts import write_rrsis_d
from s4eca.cli.audit import audit
from s4eca.cli.messages import guarded
from s4eca.cli.show import show
from s4eca.tokenizer import aerial_tokenizer

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(audit)
app.command()(show)

IMAGES = "images/rrsisd/JPEGImages"


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(monkeypatch, capsys, *arguments):
    """Runs as the `s4eca` command does and returns its message on standard error."""
    monkeypatch.setattr(sys, "argv", ["s4eca", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        guarded(app)()
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def root(tmp_path):
    return write_rrsis_d(tmp_path / "data")


def words(text):
    return " ".join(text.split())


def test_a_dataset_without_errors_gives_status_0(root):
    result = call("audit", root)
    assert result.exit_code == 0
    text = words(result.stdout)
    assert "data, layout rrsis_d" in text
    assert "train 4 12,181 4 - -" in text
    assert "words mean 7.00, from 7 to 7" in text  # The ship number 101 on the left
    assert "tokens not counted: no --tokenizer given" in text
    assert "images 8 decoded: 8 of 32 x 24" in text
    assert "0 errors" in text
    assert "misspelt-key" in text


def test_errors_give_status_1_and_names(root):
    for id in (101, 104, 107):
        (root / IMAGES / f"00{id}.jpg").write_bytes(b"")
    result = call("audit", root, "--workers", 2)
    assert result.exit_code == 1
    assert "error 3 damaged-image: samples whose image cannot be decoded" in words(result.stdout)
    assert "101, 104, 107" in result.stdout
    assert "1 error," in result.stdout
    assert call("audit", root, "--no-pixels").exit_code == 0


def test_images_of_more_bits_are_named_or_read_by_their_depth(root, tmp_path):
    for path in (root / IMAGES).iterdir():
        with Image.open(path) as image:
            deep = np.asarray(image.convert("L")).astype(np.uint16) * 16
        Image.fromarray(deep).save(path, format="PNG")
    text = words(call("audit", root).stdout)
    assert "error 8 unusable-image" in text
    assert "8 bits" in text
    assert call("audit", root, "--depth", 12).exit_code == 0
    for depth, drawn in ((8, False), (12, True)):
        call("show", root, "--out", tmp_path / "shown.html", "--size", 32, "--depth", depth)
        assert ("cannot be decoded" not in (tmp_path / "shown.html").read_text()) is drawn


def test_json_on_standard_output_is_nothing_but_json(root):
    (root / IMAGES / "00101.jpg").unlink()
    result = call("audit", root, "--json", "-")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["layout"] == "rrsis_d"
    assert report["summary"]["error"] == 1
    assert report["splits"]["val"] == {"references": 2, "images": 2, "published": 1740}
    missing = next(item for item in report["findings"] if item["code"] == "missing-image")
    assert {key: missing[key] for key in ("severity", "count", "names")} == {
        "severity": "error",
        "count": 1,
        "names": ["101"],
    }


def test_files_are_written_and_named(root, tmp_path):
    for suffix in ("png", "html"):
        out, sheet = tmp_path / f"{suffix}.json", tmp_path / f"sheet.{suffix}"
        result = call("audit", root, "--json", out, "--sheet", sheet)
        assert json.loads(out.read_text())["summary"]["error"] == 0
        assert sheet.is_file()
        assert "".join(result.stdout.split()).endswith(f"{out}{sheet}")
    assert "box-convention" in (tmp_path / "sheet.html").read_text()
    assert "chosen at random" in (tmp_path / "sheet.html").read_text()


def test_tokens(root, tmp_path):
    aerial_tokenizer().save_pretrained(tmp_path / "tokens")
    result = call("audit", root, "--tokenizer", tmp_path / "tokens", "--max-tokens", 6, "--json", "-")
    tokens = json.loads(result.stdout)["tokens"]
    assert tokens["max_tokens"] == 6
    assert tokens["truncated"] == {"train": 4, "val": 2, "test": 2}
    report = words(call("audit", root, "--tokenizer", tmp_path / "tokens", "--max-tokens", 6).stdout)
    assert "truncated 8 at 6 tokens" in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-tokens", "9"], "--max-tokens needs a tokenizer"),
        (["--tokenizer", "/nowhere"], "--tokenizer a folder that holds one"),
        (["--json", "/nowhere/at/all.json"], "no folder /nowhere/at"),
        (["--sheet", "sheet.pdf"], "end in .png or .html"),
        (["--layout", "coco"], "'coco'"),
    ],
)
def test_what_cannot_be_done_is_status_2(root, monkeypatch, capsys, arguments, message):
    assert message in words(refused(monkeypatch, capsys, "audit", root, *arguments))


def test_a_root_that_is_not_there_is_status_2(monkeypatch, capsys):
    assert "neither a folder nor a file /nowhere" in refused(monkeypatch, capsys, "audit", "/nowhere")


def test_show_says_first_where_it_draws(root, tmp_path, monkeypatch):
    out = tmp_path / "eight.png"
    (line,) = call("show", root, "--out", out, "--size", 64).stdout.splitlines()
    assert line.endswith(f"samples go to {out}")
    monkeypatch.chdir(tmp_path)
    first = call("show", root.resolve(), "--size", 64).stdout.splitlines()[0]
    assert "samples go to samples.png" in first
    assert "--out FILE" in first
    assert (tmp_path / "samples.png").read_bytes() == out.read_bytes()
    assert "samples.png" in call("show", "--help").stdout
    with Image.open(out) as sheet:
        assert sheet.width == 4 * 74 + 10
    few = tmp_path / "few.png"
    call("show", root, "--out", few, "--size", 64, "--n", 2)
    with Image.open(few) as sheet:
        assert sheet.width == 2 * 74 + 10


def shown(root, tmp_path, *arguments):
    """Returns the ids on the sheet, in order."""
    out = tmp_path / "shown.html"
    call("show", root, "--out", out, "--size", 32, *arguments)
    return [line.split("<small>")[1].split(" ")[0] for line in out.read_text().splitlines() if "<small>" in line]


def test_show_chooses(root, tmp_path):
    """101, 104, … are ship, storagetank and vehicle in turn; 4 train, 2 val, 2 test."""
    assert shown(root, tmp_path, "--ids", "122, 101") == ["122", "101"]
    assert sorted(shown(root, tmp_path, "--split", "val")) == ["113", "116"]
    assert sorted(shown(root, tmp_path, "--category", "vehicle")) == ["107", "116"]
    assert sorted(shown(root, tmp_path, "--find", "the SHIP")) == ["101", "110", "119"]
    assert shown(root, tmp_path, "--find", "number 104") == ["104"]
    assert shown(root, tmp_path, "--category", "ship", "--split", "test") == ["119"]
    first = shown(root, tmp_path, "--n", "3", "--seed", "1")
    assert len(set(first)) == 3
    assert first == shown(root, tmp_path, "--n", "3", "--seed", "1")
    assert any(shown(root, tmp_path, "--n", "3", "--seed", str(seed)) != first for seed in range(2, 6))


def test_show_draws_a_damaged_sample_too(root, tmp_path):
    (root / IMAGES / "00101.jpg").write_bytes(b"")
    assert shown(root, tmp_path, "--ids", "101") == ["101"]
    assert "the image cannot be decoded" in (tmp_path / "shown.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ids", "101,7,8"], "2 of 3 ids are not among the samples (7, 8)"),
        (["--ids", ","], "--ids is empty"),
        (["--ids", "101", "--n", "3"], "leave out --n"),
        (["--split", "dev"], "no split 'dev': choose one of test, train, val"),
        (["--category", "dam"], "no category 'dam': choose one of ship, storagetank, vehicle"),
        (["--find", "hip"], "None of the 8 samples"),
        (["--out", "sheet.gif"], "end in .png or .html"),
    ],
)
def test_show_refuses(root, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(root)
    assert message in words(refused(monkeypatch, capsys, "show", root, *arguments))
    assert not (root / "samples.png").exists()


def test_show_says_what_cannot_be_read(root, tmp_path, monkeypatch, capsys):
    instances = root / "rrsisd/instances.json"
    text = instances.read_text()
    instances.write_text("{")
    with pytest.warns(UserWarning, match=r"instances\.json cannot be read as COCO"):
        call("show", root, "--out", tmp_path / "out.html", "--size", 64)
    instances.write_text(text)
    (root / "rrsisd/refs(unc).p").write_bytes(b"\x80\x02]")
    message = words(refused(monkeypatch, capsys, "show", root, "--out", tmp_path / "none.png"))
    assert "holds no sample (refs(unc).p cannot be read" in message
    assert not (tmp_path / "none.png").exists()
