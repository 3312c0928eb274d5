import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from layouts import box_mask, picture, rle
from s4eca.data.audit import Record
from s4eca.data.masks import RleMask
from s4eca.data.sheet import BOX, OUTLINE, Section, draw_sample, write_sheet
from s4eca.errors import S4ecaError


def record(folder, number=3, region=None, **changes):
    """A black image of 48 by 64 pixels with a mask of 6 by 9, its corner at row 3 and column 3."""
    path = folder / f"{number}.png"
    if not path.exists():
        Image.new("RGB", (64, 48)).save(path)
    region = box_mask(number, 48, 64) if region is None else region
    values = {"id": str(number), "split": "val", "expression": "a <b>gray</b> ship", "category": "ship"}
    return Record(**(values | {"image": path, "mask": RleMask([rle(region)])} | changes))


def painted(drawn, colour):
    return (np.asarray(drawn) == colour).all(axis=2)


def test_the_outline_lies_around_the_mask(tmp_path):
    drawn, problems = draw_sample(record(tmp_path), 640)  # ten times the image
    assert drawn.size == (640, 480)
    assert problems == []
    rows, columns = np.nonzero(painted(drawn, OUTLINE))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (28, 91, 28, 121)  # 30..89 and 30..119, two around
    inside = np.asarray(drawn)[40:80, 40:110]
    assert (inside == inside[0, 0]).all()
    assert inside[0, 0, 1] > 0  # tinted, and no more black
    assert not np.asarray(drawn)[200:, 200:].any()


def test_a_target_of_a_pixel_gets_a_ring(tmp_path):
    mask = np.zeros((480, 640), dtype=bool)
    mask[240, 320] = True
    Image.new("RGB", (640, 480)).save(tmp_path / "7.png")
    drawn, _ = draw_sample(record(tmp_path, 7, mask), 160)
    rows, columns = np.nonzero(painted(drawn, OUTLINE))
    assert 28 <= np.ptp(rows) <= 34
    assert 28 <= np.ptp(columns) <= 34
    assert abs(rows.mean() - 60) < 2
    assert abs(columns.mean() - 80) < 2


def test_boxes_are_drawn_when_asked_for(tmp_path):
    for bbox, convention in (([10, 20, 30, 15], "xywh"), ([10, 20, 40, 35], "xyxy")):
        drawn, _ = draw_sample(record(tmp_path, bbox=bbox), 64, convention)
        rows, columns = np.nonzero(painted(drawn, BOX))
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 35, 10, 40)
    drawn, _ = draw_sample(record(tmp_path, bbox="none"), 64, "xywh")
    assert not painted(drawn, BOX).any()


def test_a_box_far_beyond_the_picture_is_drawn_at_once(tmp_path):
    """Pillow walks along an outline, and a box of 1e14 pixels has a long one."""
    drawn, _ = draw_sample(record(tmp_path, bbox=[10, 10, 1e14, 1e14]), 64, "xywh")
    assert painted(drawn, BOX)[10, 12:].any()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image": None}, "no image file"),
        ({"mask": None}, "no mask"),
        ({"mask": None, "no_target": True}, "no target"),
        ({"mask": RleMask([rle(np.zeros((48, 64), dtype=bool))])}, "the mask is empty"),
        ({"mask": RleMask([{"size": [48, 64], "counts": "0"}])}, "the mask cannot be decoded"),
    ],
)
def test_what_cannot_be_drawn_is_said(tmp_path, changes, problem):
    drawn, problems = draw_sample(record(tmp_path, **changes), 80)
    assert problems == [problem]
    assert max(drawn.size) == 80


def test_a_damaged_image_leaves_its_mask(tmp_path):
    (tmp_path / "3.png").write_bytes(b"no image")
    drawn, problems = draw_sample(record(tmp_path), 640)
    assert problems == ["the image cannot be decoded"]
    assert painted(drawn, OUTLINE).any()


def test_png(tmp_path):
    out = tmp_path / "sheet.png"
    out.write_bytes(b"an older one")
    write_sheet(out, [Section("first", [record(tmp_path)] * 5), Section("second", [record(tmp_path)])], 100, 4)
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width == 4 * 110 + 10
        # 5 samples in rows of 4 and 1 in its own: three rows of pictures, each with its outline
        lines = painted(sheet, OUTLINE).any(axis=1)
    assert np.count_nonzero(np.diff(lines.astype(int)) == 1) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.png", "sheet.png"]


def test_html_holds_its_pictures_and_escapes_text(tmp_path):
    out = tmp_path / "sheet.html"
    Image.fromarray(picture(9)).save(tmp_path / "9.png")
    write_sheet(out, [Section("a & b", [record(tmp_path), record(tmp_path, 9)])], 64)
    text = out.read_text()
    assert "a &amp; b" in text
    assert "a &lt;b&gt;gray&lt;/b&gt; ship" in text
    assert "<b>" not in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    assert [Image.open(io.BytesIO(base64.b64decode(one))).size for one in pictures] == [(64, 48), (64, 48)]


@pytest.mark.parametrize(("name", "message"), [("sheet.pdf", "end in .png or .html"), ("no/sheet.png", "no folder")])
def test_names_that_cannot_be_written(tmp_path, name, message):
    with pytest.raises(S4ecaError, match=message):
        write_sheet(tmp_path / name, [])
