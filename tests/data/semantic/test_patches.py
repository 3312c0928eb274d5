import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from fake_isaid import save, write_scenes
from layouts import SAMPLES
from s4eca.cli.patches import patches as command
from s4eca.data.semantic import patches as module
from s4eca.data.semantic.isaid import PATCH_COUNTS, read_isaid
from s4eca.data.semantic.palette import read_labels
from s4eca.data.semantic.patches import Cut, cut_patches, windows
from s4eca.errors import S4ecaError

pytestmark = pytest.mark.filterwarnings("ignore:.*are expected")


def slid(length: int, size: int, overlap: int) -> set[int]:
    """Starts along an axis, by a window that slides while it begins inside and is moved back where it ends outside."""
    length = max(length, size)
    starts = set()
    for start in range(0, length, size - overlap):
        starts.add(start - max(start + size - length, 0))
    return starts


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.data())
def test_windows_are_those_of_a_sliding_window(height, width, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    found = windows(height, width, size, overlap)
    wanted = {(y, y + size, x, x + size) for y in slid(height, size, overlap) for x in slid(width, size, overlap)}
    assert len(found) == len(set(found))
    assert set(found) == wanted
    covered = np.zeros((height, width), bool)
    for top, bottom, left, right in found:
        covered[top:bottom, left:right] = True
    assert covered.all()


def test_windows_of_a_scene_by_hand():
    assert windows(896, 1500, 896, 384) == [(0, 896, 0, 896), (0, 896, 512, 1408), (0, 896, 604, 1500)]
    assert windows(500, 896, 896, 384) == [(0, 896, 0, 896)]
    assert windows(897, 300, 896, 384) == [(0, 896, 0, 896), (1, 897, 0, 896)]


def test_patches_hold_the_scene_and_padding_beyond_it(tmp_path):
    sizes = {"P0001": (23, 31), "P0002": (8, 25), "P0003": (16, 9), "P0004": (5, 7)}
    scenes = write_scenes(tmp_path / "raw", sizes)
    cut = cut_patches(tmp_path / "raw", tmp_path / "out", "val", size=16, overlap=6, workers=2)
    items = read_isaid(tmp_path / "out", "val")
    assert cut == Cut(scenes=4, patches=len(items), written=len(items))
    assert len(items) == 2 * 3 + 1 * 2 + 1 + 1
    for item in items:
        name, top, bottom, left, right = item.id.split("_")
        image, ids = scenes[name]
        found_image, found_ids = np.asarray(Image.open(item.image)), read_labels(item)
        assert found_image.shape == (16, 16, 3)
        assert (int(bottom) - int(top), int(right) - int(left)) == (16, 16)
        for row in range(16):
            for column in range(16):
                y, x = int(top) + row, int(left) + column
                inside = y < ids.shape[0] and x < ids.shape[1]
                assert found_image[row, column].tolist() == (image[y, x].tolist() if inside else [0, 0, 0])
                assert found_ids[row, column] == (ids[y, x] if inside else 255)


def test_the_test_split_is_cut_without_labels(tmp_path):
    write_scenes(tmp_path / "raw", {"P0001": (9, 9)}, "test")
    assert cut_patches(tmp_path / "raw", tmp_path / "out", "test", size=8, overlap=2).patches == 4
    assert not (tmp_path / "out" / "ann_dir").exists()
    assert [item.labels for item in read_isaid(tmp_path / "out", "test")] == [None] * 4


def test_a_second_run_keeps_whole_patches_and_mends_the_others(tmp_path):
    write_scenes(tmp_path / "raw", {"P0001": (30, 30), "P0002": (12, 12)})
    arguments = (tmp_path / "raw", tmp_path / "out", "val", 12, 3)
    assert cut_patches(*arguments).written == 10
    files = sorted(path for path in (tmp_path / "out").rglob("*.png"))
    content = {path: path.read_bytes() for path in files}
    for path in files:
        os.utime(path, (1, 1))
    image, labels = files[-3], files[2]  # ann_dir sorts before img_dir
    image.write_bytes(content[image][:-40])
    labels.unlink()
    seen = []
    cut = cut_patches(*arguments, progress=lambda done, total: seen.append((done, total)))
    assert cut == Cut(scenes=2, patches=10, written=2)
    assert seen == [(1, 2), (2, 2)]
    assert {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.png"))} == content
    assert sum(path.stat().st_mtime > 1 for path in files) == 4
    assert cut_patches(*arguments).written == 0


def test_an_interrupted_run_leaves_no_half_patch(tmp_path, monkeypatch):
    write_scenes(tmp_path / "raw", {"P0001": (30, 30)})
    true_write, calls = module._write, []

    def fail(path, array):
        calls.append(path)
        if len(calls) > 5:
            raise KeyboardInterrupt
        true_write(path, array)

    monkeypatch.setattr(module, "_write", fail)
    with pytest.raises(KeyboardInterrupt):
        cut_patches(tmp_path / "raw", tmp_path / "out", "val", 12, 3)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 5
    for path in files:
        assert Image.open(path).size == (12, 12)
    monkeypatch.setattr(module, "_write", true_write)
    assert cut_patches(tmp_path / "raw", tmp_path / "out", "val", 12, 3).written == 9 - 2


def test_patches_of_another_size_are_not_mixed_in(tmp_path):
    write_scenes(tmp_path / "raw", {"P0001": (30, 30)})
    cut_patches(tmp_path / "raw", tmp_path / "out", "val", 12, 3)
    with pytest.raises(S4ecaError, match=r"holds \d+ images that are no patches of these scenes.*empty folder"):
        cut_patches(tmp_path / "raw", tmp_path / "out", "val", 10, 3)


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (8, 8), (8, -1)])
def test_impossible_windows_are_refused(tmp_path, size, overlap):
    with pytest.raises(S4ecaError, match="cannot overlap"):
        cut_patches(tmp_path, tmp_path / "out", "val", size, overlap)
    assert not (tmp_path / "out").exists()


def test_an_image_and_labels_of_other_sizes_are_an_error(tmp_path):
    write_scenes(tmp_path / "raw", {"P0001": (9, 9)})
    save(tmp_path / "raw" / "val" / "images" / "P0001.png", np.zeros((9, 10, 3), np.uint8))
    with pytest.raises(S4ecaError, match=r"P0001_instance_color_RGB\.png has \(9, 9\) pixels .*\(9, 10\)"):
        cut_patches(tmp_path / "raw", tmp_path / "out", "val", 8, 2)


@pytest.mark.filterwarnings("default")
def test_the_number_of_standard_patches_is_compared(tmp_path, monkeypatch):
    write_scenes(tmp_path / "raw", {"P0001": (897, 20)})
    with pytest.warns(UserWarning, match="makes 2 patches where 11,644 are expected"):
        cut_patches(tmp_path / "raw", tmp_path / "out", "val")
    monkeypatch.setitem(PATCH_COUNTS, "val", 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cut_patches(tmp_path / "raw", tmp_path / "out", "val")
    assert not [warning for warning in caught if "patches" in str(warning.message)]


def test_the_command_prints_counts(tmp_path):
    import typer

    app = typer.Typer()
    app.command()(command)
    write_scenes(tmp_path / "raw", {"P0001": (30, 30)})
    write_scenes(tmp_path / "raw", {"P0002": (12, 12)}, "train")
    arguments = [str(tmp_path / "raw"), str(tmp_path / "out"), "--size", "12", "--overlap", "3"]
    assert "9 val patches of 1 scenes, 9 written and 0 kept" in CliRunner().invoke(app, arguments).stdout
    both = CliRunner().invoke(app, [*arguments, "--split", "val", "--split", "train"])
    assert "9 val patches of 1 scenes, 0 written and 9 kept" in both.stdout
    assert "1 train patches of 1 scenes, 1 written and 0 kept" in both.stdout
    wrong = CliRunner().invoke(app, [*arguments, "--split", "valid"])
    assert isinstance(wrong.exception, S4ecaError)


def test_a_real_scene_keeps_its_counts_per_class(tmp_path):
    root = SAMPLES / "isaid_mini"
    if not root.is_dir():
        pytest.skip(f"no sample data in {root}")
    cut = cut_patches(root, tmp_path, "val")
    assert (cut.patches, cut.written) == (4, 4)  # 1023 x 1147: two rows of two
    whole = read_labels(read_isaid(root, "val")[0])
    joined = np.full((1023, 1147), 255, np.uint8)
    for item in read_isaid(tmp_path, "val"):
        top, bottom, left, right = map(int, item.id.split("_")[1:])
        joined[top:bottom, left:right] = read_labels(item)
    assert joined.tobytes() == whole.tobytes()
    counts = np.bincount(joined.ravel(), minlength=16)
    assert counts[[0, 2, 8, 9]].tolist() == [1098554, 403, 62704, 11720]
    assert counts.sum() == 1023 * 1147
