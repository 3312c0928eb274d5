from pathlib import Path

import pytest

from s4eca.files import write_text


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
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
