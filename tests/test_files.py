import hashlib
from pathlib import Path

import pytest

from s4eca.errors import S4ecaError
from s4eca.files import check_writable, hash_files, make_folder, write_text


def test_replaces_a_file_as_a_whole(tmp_path):
    path = tmp_path / "a.csv"
    write_text(path, "old")
    write_text(path, "x,y\r\n1,ü\n")
    assert path.read_bytes() == "x,y\r\n1,ü\n".encode()
    assert [item.name for item in tmp_path.iterdir()] == ["a.csv"]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_text(path, "old")

    def full(self, *args, **options):
        raise OSError(28, "disk full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(S4ecaError, match=r"a\.json cannot be written \(disk full\)"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_places_that_cannot_be_are_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for make in (make_folder, lambda path: check_writable(path / "scores.json")):
        with pytest.raises(S4ecaError, match="cannot be made"):
            make(tmp_path / "file" / "below")
    with pytest.raises(S4ecaError, match="is a folder: name a file"):
        check_writable(tmp_path)
    check_writable(tmp_path / "new" / "scores.json")
    assert [path.name for path in (tmp_path / "new").iterdir()] == []


def test_a_folders_hash_is_that_of_its_files_and_their_names(tmp_path):
    for name, text in (("a", "1"), ("b/c", "2")):
        (tmp_path / "one" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "one" / name).write_text(text)
    (tmp_path / "one").rename(tmp_path / "two")
    whole = hash_files(tmp_path / "two")
    assert hash_files(tmp_path / "two" / "a") == hashlib.sha256(b"1").hexdigest()
    (tmp_path / "two" / "a").rename(tmp_path / "two" / "d")
    assert hash_files(tmp_path / "two") != whole
    (tmp_path / "two" / "d").rename(tmp_path / "two" / "a")
    assert hash_files(tmp_path / "two") == whole
