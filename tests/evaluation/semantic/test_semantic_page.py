import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from fake_isaid import COLOURS
from made_semantic import make_semantic
from s4eca.data.semantic.palette import ISAID_COLOURS
from s4eca.evaluation.page.wording import NOTHING
from s4eca.evaluation.semantic import page
from s4eca.evaluation.semantic.page import write_semantic_page
from s4eca.evaluation.semantic.pictures import SemanticPicture


def written(folder, pictures=None, **about) -> str:
    summary, made = make_semantic(**about)
    return write_semantic_page(folder, summary, made if pictures is None else pictures, ISAID_COLOURS).read_text()


def images(html: str) -> list[tuple[str, Image.Image]]:
    found = re.findall(r'<img src="data:image/(\w+);base64,([^"]+)" [^>]*alt="([^"]*)"', html)
    return [(alt, Image.open(io.BytesIO(base64.b64decode(data)))) for _, data, alt in found]


def cells(html: str) -> dict[str, list[str]]:
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', html)
    return {name: re.findall(r"<td>([^<]*)</td>", content) for name, content in rows}


def test_the_page_needs_nothing_else(tmp_path):
    html = written(tmp_path)
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    assert "@import" not in html
    assert "url(" not in html
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_page_looks_like_the_other_report(tmp_path):
    style = written(tmp_path).partition("<style>")[2].partition("</style>")[0]
    for rule in (":root {", "--paper:", ".tiles {", "prefers-color-scheme: dark", "@media print"):
        assert rule in style


def test_the_page_has_every_class_and_score(tmp_path):
    summary, _ = make_semantic()
    html = written(tmp_path)
    table = cells(html)
    scores = summary["scores"]
    overall = {name: table.pop(name) for name in ("mIoU16", "mIoU15", "pixel acc.", "mAcc", "images", "pixels")}
    named = [scores[name] for name in ("mIoU16", "mIoU15", "pixel_accuracy", "mAcc")]
    assert list(overall.values()) == [*([f"{100 * value:.2f}"] for value in named), ["3"], [f"{scores['pixels']:,}"]]
    assert list(table) == list(ISAID_COLOURS)
    ship = summary["classes"]["ship"]
    assert table["ship"] == [
        *(f"{100 * ship[name]:.2f}" for name in ("IoU", "recall", "precision")),
        f"{100 * ship['truth_pixels'] / scores['pixels']:.2f}",
        f"{ship['truth_pixels']:,}",
        f"{ship['predicted_pixels']:,}",
    ]
    assert table["harbor"][:3] == [NOTHING] * 3


def test_pictures_show_the_labels_in_exact_colours(tmp_path):
    _, pictures = make_semantic(images=1)
    found = images(written(tmp_path, pictures))
    assert [alt for alt, _ in found] == [f"{name} of {pictures[0].id}" for name in ("image", "truth", "prediction")]
    assert {picture.size for _, picture in found} == {(420, 420)}
    truth = np.asarray(found[1][1].convert("RGB"))
    ids = np.kron(pictures[0].truth, np.ones((7, 7), np.uint8))
    for id in np.unique(ids[ids != 255]).tolist()[1:]:
        assert (truth[ids == id] == COLOURS[id]).all(), id


def test_the_legend_has_what_the_pictures_show(tmp_path):
    image, ids = np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 14, np.uint8)
    html = written(tmp_path, [SemanticPicture(0, "P1", image, None, ids)])
    legend = re.findall(r'<span class="key" style="background: ([^"]*)"></span> ([^<]*)</span>', html)
    assert legend == [("rgb(0 127 255)", "plane"), ("rgb(120 120 120)", "not counted")]
    assert 'id="pictures"' not in written(tmp_path, [])


def test_a_part_of_a_split_is_flagged_and_nothing_else(tmp_path):
    assert "A part of the split" not in written(tmp_path)
    html = written(tmp_path, subset={"images": 3, "of": 11644, "seed": 4})
    assert "Only 3 of 11,644 images were scored, drawn with seed 4." in html
    assert "<dt>Subset</dt>" not in html


def test_names_are_escaped(tmp_path):
    html = written(tmp_path, name="<b>mine</b>", command="eval.py a='<x>'")
    assert "<b>mine" not in html
    assert "&lt;b&gt;mine" in html
    assert "&lt;x&gt;" in html


def test_many_pictures_get_smaller(tmp_path, monkeypatch):
    _, pictures = make_semantic(images=4, side=200)
    large = images(written(tmp_path, pictures))
    monkeypatch.setattr(page, "PICTURES", 200_000)
    small = images(written(tmp_path, pictures))
    assert len(small) == len(large) == 12
    assert max(small[0][1].size) < max(large[0][1].size) == 400


@pytest.mark.parametrize("count", [0, 1])
def test_the_page_is_replaced_as_a_whole(tmp_path, count):
    written(tmp_path)
    summary, pictures = make_semantic(images=1, name="second")
    html = write_semantic_page(tmp_path, summary, pictures[:count], ISAID_COLOURS).read_text()
    assert html.count("<!DOCTYPE html>") == 1
    assert "second" in html
