import dataclasses
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s4eca.data.references import Reference
from s4eca.errors import S4ecaError
from s4eca.evaluation.results import Evaluation, SampleInfo, build_evaluation, read_evaluation, write_samples


class NoMask:
    """A mask that nobody may decode: everything about it was counted before."""

    def decode(self) -> np.ndarray:
        raise AssertionError


def references(n: int = 3) -> list[Reference]:
    categories, kinds = ["ship", None, "dam"], ["class", "place", None]
    return [
        Reference(
            f"r{i}",
            Path("/data/images") / f"{i // 2}.jpg",
            f"the {i}th",
            "test",
            categories[i],
            NoMask(),
            i == 1,
            kinds[i],
        )
        for i in range(n)
    ]


def counted() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows as the metric leaves them, without categories, and sizes."""
    lavt = np.array([[0, 1, 4, 2, -1, 0], [1, 0, 1, 0, -1, 0], [2, 2, 2, 2, -1, 0]])
    original = np.array([[0, 3, 8, 5, -1, 0], [1, 0, 2, 0, -1, 0], [2, 4, 4, 4, -1, 0]])
    return {"lavt": lavt, "original": original}, np.array([[0, 8, 6, 5], [1, 3, 5, 0], [2, 9, 9, 4]])


def test_rows_meet_their_references():
    rows, sizes = counted()
    evaluation = build_evaluation({"split": "test"}, references(), rows, sizes)
    assert evaluation.samples == [
        SampleInfo("r0", "0.jpg", "the 0th", "ship", False, (8, 6), 5, "class"),
        SampleInfo("r1", "0.jpg", "the 1th", None, True, (3, 5), 0, "place"),
        SampleInfo("r2", "1.jpg", "the 2th", "dam", False, (9, 9), 4),
    ]
    assert evaluation.categories == ("dam", "ship")
    assert evaluation.rows["original"].tolist() == [[0, 3, 8, 5, 1, 0], [1, 0, 2, 0, -1, 1], [2, 4, 4, 4, 0, 0]]
    assert rows["original"][:, 4].tolist() == [-1, -1, -1], "what was passed is not changed"
    assert [type(value) for value in (*evaluation.samples[0].size, evaluation.samples[0].area)] == [int] * 3


def test_samples_that_were_not_evaluated_are_an_error_and_no_smaller_score():
    rows, sizes = counted()
    rows = {name: content[[0]] for name, content in rows.items()}
    with pytest.raises(S4ecaError, match=r"2 of 3 samples were not evaluated \(the first: r1, r2\)"):
        build_evaluation({}, references(), rows, sizes[[0]])
    whole, sizes = counted()
    with pytest.raises(S4ecaError, match=r"1 of 3 samples were not evaluated \(the first: r1\)"):
        build_evaluation({}, references(), whole | {"lavt": whole["lavt"][[0, 2]]}, sizes)


def test_rows_of_other_references_or_in_another_order_are_refused():
    rows, sizes = counted()
    with pytest.raises(S4ecaError, match="3 rows for 2 references"):
        build_evaluation({}, references(2), rows, sizes)
    with pytest.raises(S4ecaError, match="in their order"):
        build_evaluation({}, references(), {name: content[::-1] for name, content in rows.items()}, sizes)


def test_what_is_written_is_what_is_read(tmp_path):
    rows, sizes = counted()
    about = {"dataset": "rrsis_d", "seed": None, "learned": {"head": 12}}
    written = build_evaluation(about, references(), rows, sizes)
    path = write_samples(tmp_path / "eval", written)
    assert path == tmp_path / "eval" / "samples.parquet"
    for place in (path, tmp_path / "eval"):
        read = read_evaluation(place)
        assert (read.about, read.samples) == (about, written.samples)
        assert list(read.rows) == ["lavt", "original"]
        for name, content in read.rows.items():
            assert content.dtype == np.int64
            assert content.tolist() == written.rows[name].tolist()
    assert [entry.name for entry in (tmp_path / "eval").iterdir()] == ["samples.parquet"]


def test_the_file_is_for_other_programs_too(tmp_path):
    rows, sizes = counted()
    table = pq.read_table(write_samples(tmp_path, build_evaluation({}, references(), rows, sizes)))
    assert table.column_names[:8] == ["id", "image", "expression", "category", "no_target", "height", "width", "area"]
    assert table.column("original/IoU").to_pylist() == [3 / 8, 0.0, 1.0]
    assert table.column("category").to_pylist() == ["ship", None, "dam"]


def test_a_file_of_before_has_no_kinds(tmp_path):
    rows, sizes = counted()
    path = write_samples(tmp_path, build_evaluation({}, references(), rows, sizes))
    table = pq.read_table(path)
    assert table.column("kind").to_pylist() == ["class", "place", None]
    pq.write_table(table.drop_columns("kind"), path)
    assert [sample.kind for sample in read_evaluation(path).samples] == [None] * 3


def test_no_samples_are_written_and_read(tmp_path):
    nothing = Evaluation({"split": "val"}, [], {"lavt": np.zeros((0, 6), np.int64)})
    write_samples(tmp_path, nothing)
    read = read_evaluation(tmp_path)
    assert read.samples == []
    assert read.rows["lavt"].shape == (0, 6)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    rows, sizes = counted()
    evaluation = build_evaluation({"seed": 1}, references(), rows, sizes)
    write_samples(tmp_path, evaluation)
    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_samples(tmp_path, dataclasses.replace(evaluation, about={"seed": 2}))
    monkeypatch.undo()
    assert read_evaluation(tmp_path).about == {"seed": 1}


def test_missing_damaged_and_foreign_files_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(S4ecaError, match=r"There is no .*samples\.parquet"):
        read_evaluation(tmp_path)
    file = tmp_path / "samples.parquet"
    rows, sizes = counted()
    whole = write_samples(tmp_path, build_evaluation({}, references(), rows, sizes)).read_bytes()
    foreign = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["a"]}), foreign)
    for content in (b"", b"not parquet", whole[:-20], foreign.getvalue().to_pybytes()):
        file.write_bytes(content)
        with pytest.raises(S4ecaError, match=re.escape(str(file)) + " cannot be read as the samples") as caught:
            read_evaluation(file)
        assert "\n" not in str(caught.value)


def test_copies_of_an_image_are_one_image(tmp_path, monkeypatch):
    """RefSegRS has a numbered copy for each expression; relative and absolute folders may be joined."""
    monkeypatch.chdir(tmp_path)
    contents = {"a/1.tif": b"scene", "a/2.tif": b"other", "b/1.tif": b"third", "b/3.tif": b"scene"}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / "a/1.tif", tmp_path / "a/2.tif", Path("b/1.tif"), Path("b/3.tif")]
    items = [Reference(f"r{i}", path, "it", "test", None, NoMask()) for i, path in enumerate(paths)]
    row = np.array([[i, 1, 1, 1, -1, 0] for i in range(4)])
    sizes = np.array([[i, 2, 2, 1] for i in range(4)])
    evaluation = build_evaluation({}, items, {"lavt": row}, sizes)
    assert [sample.image for sample in evaluation.samples] == ["a/1.tif", "2.tif", "b/1.tif", "a/1.tif"]
