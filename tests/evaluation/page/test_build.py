import base64
import dataclasses
import io
import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_evaluation import CATEGORIES, make_evaluation
from s4eca.errors import S4ecaError
from s4eca.evaluation.page import build as page
from s4eca.evaluation.page.build import write_page
from s4eca.evaluation.page.panels import Choice, Panel, choose_panels
from s4eca.evaluation.results import Evaluation, SampleInfo
from s4eca.evaluation.summary import summarise_evaluation

DASH = "\N{EN DASH}"
VOID = {"meta", "link", "img", "br", "hr", "input", "source"}


class Element:
    def __init__(self, tag: str, attributes: dict[str, str], parent: "Element | None"):
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element | str] = []

    def all(self, tag: str, **attributes: str) -> list["Element"]:
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag and attributes.items() <= child.attributes.items():
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children).strip()


class Reader(HTMLParser):
    """Builds a tree and insists that every element is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.root = self.open = Element("document", {}, None)

    def handle_starttag(self, tag, attributes):
        element = Element(tag, {name: value or "" for name, value in attributes}, self.open)
        self.open.children.append(element)
        if tag not in VOID:
            self.open = element

    def handle_endtag(self, tag):
        assert self.open.tag == tag, f"</{tag}> closes <{self.open.tag}>"
        self.open = self.open.parent

    def handle_data(self, data):
        self.open.children.append(data)


def read(path: Path) -> Element:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open is reader.root
    return reader.root


def table(root: Element, caption: str) -> list[list[str]]:
    """The cells of the one table whose caption begins like this; an interval stands behind its value."""
    (found,) = (item for item in root.all("table") if item.all("caption")[0].text.startswith(caption))
    rows = []
    for row in found.all("tr"):
        cells = [child for child in row.children if isinstance(child, Element)]
        rows.append([re.sub(r"\s+", " ", cell.text) for cell in cells])
    return rows


def scores(start: float, n: int, **more) -> dict:
    names = ("mIoU", "oIoU", "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9")
    values = {name: start - 0.01111 * place for place, name in enumerate(names)}
    return values | {"n": n, "n_empty": 0, "n_no_target": 0, "N-acc": math.nan, "T-acc": 1.0} | more


def written_by_hand() -> tuple[Evaluation, dict]:
    """Two samples under one protocol, and a summary whose numbers come from nowhere: the page must print them."""
    samples = [
        SampleInfo("1", "a.jpg", "the ship", "ship", False, (10, 10), 20),
        SampleInfo("2", "b.jpg", "the dam", "dam", False, (10, 10), 20),
    ]
    rows = np.array([[0, 10, 20, 20, 1, 0], [1, 20, 20, 20, 0, 0]])
    nonempty = {f"nonempty/{name}": value for name, value in scores(0.7, 1_234_566).items()}
    summary = {
        "about": {},
        "protocols": {"lavt": scores(0.65432, 1_234_567, n_empty=1) | nonempty},
        "intervals": {
            "confidence": 0.9,
            "replicates": 12_000,
            "seed": 7,
            "protocols": {"lavt": {"mIoU": [0.64, 0.6678], "Pr@0.9": [None, None], "oIoU": [math.nan, math.nan]}},
        },
        "categories": {"lavt": {"dam": scores(0.3, 1100), "ship": scores(0.9, 0, **{"mIoU": None, "oIoU": None})}},
        "sizes": {
            "pixels": {"lavt": {"small": scores(0.2, 0, mIoU=math.nan), "large": scores(0.4, 1)}},
            "share": {"lavt": {"below 0.1%": scores(0.5, 3)}},
        },
    }
    return Evaluation({"dataset": "RRSIS-D", "split": "val"}, samples, {"lavt": rows}), summary


def drawn(evaluation: Evaluation, count: int, side: int = 40, noise: int = 5, protocol: str = "lavt") -> list[Panel]:
    rng = np.random.default_rng(0)
    panels = []
    for choice in choose_panels(evaluation, protocol, count):
        truth, prediction = np.zeros((2, side, side), bool)
        truth[: side // 2], prediction[:, : side // 4] = True, True
        image = rng.integers(100, 150, 3) + rng.integers(-noise, noise + 1, (side, side, 3))
        panels.append(Panel(choice, np.clip(image, 0, 255).astype(np.uint8), truth, prediction))
    return panels


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Evaluation, dict, list[Panel], Element, str]:
    evaluation = make_evaluation(120, empty=3, no_target=5, command="python eval.py 'ckpt=a b.ckpt' split=test")
    summary = summarise_evaluation(evaluation, replicates=20)
    panels = drawn(evaluation, 2)
    path = write_page(tmp_path_factory.mktemp("report") / "new" / "folder", evaluation, summary, panels)
    return evaluation, summary, panels, read(path), path.read_text()


def test_every_number_of_a_summary_is_printed(tmp_path):
    evaluation, summary = written_by_hand()
    root = read(write_page(tmp_path, evaluation, summary, []))
    overall = table(root, "Scores in percent")
    assert overall == [
        ["protocol", "lavt"],
        ["mIoU", f"65.4364.00{DASH}66.78"],
        ["oIoU", "64.32"],
        ["Pr@0.5", "63.21"],
        ["Pr@0.6", "62.10"],
        ["Pr@0.7", "60.99"],
        ["Pr@0.8", "59.88"],
        ["Pr@0.9", "58.77"],
        ["samples (n)", "1,234,567"],
        ["with empty truth", "1"],
        ["Without the samples whose truth is empty"],
        ["mIoU", "70.00"],
        ["oIoU", "68.89"],
        ["Pr@0.5", "67.78"],
        ["Pr@0.6", "66.67"],
        ["Pr@0.7", "65.56"],
        ["Pr@0.8", "64.44"],
        ["Pr@0.9", "63.33"],
        ["n", "1,234,566"],
    ]
    caption = root.all("caption")[0].text
    assert "its 90 % interval (bootstrap over images, 12,000 replicates, seed 7)" in caption
    assert table(root, "Scores per category under lavt") == [
        ["category", "n", "mIoU", "oIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9"],
        ["dam", "1,100", "30.00", "28.89", "27.78", "25.56", "23.33"],
        ["ship", "0", DASH, DASH, "87.78", "85.56", "83.33"],
    ]
    assert table(root, "Pixels of the truth, under lavt")[1:] == [
        ["small", "0", DASH, "18.89", "17.78", "15.56", "13.33"],
        ["large", "1", "40.00", "38.89", "37.78", "35.56", "33.33"],
    ]
    assert table(root, "Share of the image")[1:] == [["below 0.1%", "3", "50.00", "48.89", "47.78", "45.56", "43.33"]]
    assert root.all("h1")[0].text == root.all("title")[0].text == "RRSIS-D val"
    assert not root.all("img")
    assert "No-target" not in root.text.split("The scores")[0]


def test_the_table_of_protocols_is_the_summary(made):
    _, summary, _, root, _ = made
    overall = table(root, "Scores in percent")
    assert overall[0] == ["protocol", "lavt", "original", "detris"]
    lines = {line[0]: line[1:] for line in reversed(overall[1:])}  # names come twice; the first ones stay
    for column, protocol in enumerate(("lavt", "original", "detris")):
        values, bounds = summary["protocols"][protocol], summary["intervals"]["protocols"][protocol]
        for name in ("mIoU", "oIoU", "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9", "N-acc", "T-acc"):
            low, high = (f"{100 * end:.2f}" for end in bounds[name])
            assert lines[name][column] == f"{100 * values[name]:.2f}{low}{DASH}{high}"
    assert lines["samples (n)"] == ["123"] * 3
    assert lines["with empty truth"] == ["3"] * 3
    assert lines["no-target samples"] == ["5"] * 3
    assert overall[[line[0] for line in overall].index("n")] == ["n", *["120"] * 3]


def test_every_protocol_is_explained_once(made):
    *_, root, _ = made
    (listed,) = root.all("dl", **{"class": "protocols"})
    said = {item.all("dt")[0].text: item.all("dd")[0].text for item in listed.all("div")}
    assert list(said) == ["lavt", "original", "detris"]
    assert "input size" in said["lavt"]
    assert "IoU > X" in said["detris"]
    assert "0.35" in said["detris"]
    assert len(set(said.values())) == 3


def test_figures_hold_the_samples_of_the_evaluation(made):
    evaluation, summary, _, root, text = made
    histogram, precision = root.all("section", id="distribution")[0].all("svg")
    for protocol, rows in evaluation.rows.items():
        counts = [
            int(re.search(r": ([\d,]+) samples", title.text)[1].replace(",", ""))
            for title in histogram.all("title")
            if title.parent.attributes["id"].startswith(f"histogram-bar-{protocol}-")
        ]
        assert len(counts) == 20
        assert sum(counts) == summary["protocols"][protocol]["n"] == 123  # no-target samples have no IoU
        first = sum(row[1] * 20 < row[2] or row[2] == 0 for row in rows if not row[5])
        assert counts[0] == first
    assert [title.text for title in precision.all("title")] == list(evaluation.rows)
    bars = re.findall(r'id="categories-(\w+)-bar-\d+"', text)
    categories = {name for name in CATEGORIES if any(sample.category == name for sample in evaluation.samples)}
    for protocol in evaluation.rows:
        assert bars.count(protocol) == len(categories) == len(table(root, f"Scores per category under {protocol}")) - 1
    assert len(root.all("details")) == 4  # categories and sizes of the two other protocols


def test_panels_show_image_masks_expression_and_score(made):
    evaluation, _, panels, root, _ = made
    figures = root.all("figure", **{"class": "panel"})
    assert [figure.attributes["data-group"] for figure in figures] == [p.choice.group for p in panels]
    assert [heading.text for heading in root.all("section", id="panels")[0].all("h3")] == ["Best", "Median", "Worst"]
    for figure, panel in zip(figures, panels, strict=True):
        sample, row = panel.choice.sample, evaluation.rows["lavt"][panel.choice.position]
        caption = re.sub(r"\s+", " ", figure.all("figcaption")[0].text)
        assert (
            caption == f"“{sample.expression}” IoU {100 * row[1] / row[2]:.2f} % · id {sample.id} · {sample.category}"
        )
        images = figure.all("img")
        names = ("image", "truth", "prediction", "error")
        assert [image.attributes["alt"] for image in images] == [f"{name}: {sample.expression}" for name in names]
        tiles = [picture(image) for image in images]
        assert {tile.size for tile in tiles} == {(320, 320)}  # eight times as large
        assert [int(images[0].attributes[key]) for key in ("width", "height")] == [320, 320]
        shown = dict(zip(names, (np.asarray(tile).astype(float) for tile in tiles), strict=True))
        assert np.abs(shown["image"].reshape(40, 8, 40, 8, 3).mean((1, 3)) - panel.image).mean() < 4
        # the quarters of truth (above) and prediction (left): both, missed, false, none
        places = {"both": (60, 20), "missed": (60, 200), "false": (260, 20), "none": (260, 200)}
        for name, marked in (("truth", "both missed"), ("prediction", "both false"), ("error", "missed false")):
            for place, (row, column) in places.items():
                inside = (slice(row, row + 30), slice(column, column + 30))
                tint = np.abs(shown[name][inside].mean((0, 1)) - shown["image"][inside].mean((0, 1))).max()
                assert (tint > 20) == (place in marked.split()), (name, place)
    note = root.all("section", id="panels")[0].all("p")[0].text
    assert "Chosen by IoU under lavt" in note
    assert "Left out for having no truth to compare with: 8 of 128 samples." in note


def picture(image: Element) -> Image.Image:
    kind, content = image.attributes["src"].split(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")


def test_the_page_needs_nothing_else(made):
    *_, root, text = made
    assert not root.all("link")
    assert not root.all("script")
    assert not root.all("iframe")
    everything = [element for tag in ("img", "use", "image", "a", "source") for element in root.all(tag)]
    for element in everything:
        for key in ("src", "href", "srcset"):
            assert element.attributes.get(key, "#").startswith(("data:", "#"))
    assert "http" not in text
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(ids)) == len(ids)


def test_the_page_is_made_for_phones_readers_and_paper(made):
    *_, root, text = made
    assert root.all("html")[0].attributes["lang"] == "en"
    viewport = root.all("meta", name="viewport")[0].attributes["content"]
    assert viewport == "width=device-width, initial-scale=1"
    for item in root.all("table"):
        assert item.all("caption")[0].text
        assert "wide" in item.parent.attributes["class"].split()  # scrolls inside its box
        assert item.parent.attributes["tabindex"] == "0"
        assert all(head.attributes["scope"] for head in item.all("th"))
    for image in root.all("img"):
        assert image.attributes["alt"]
    for svg in root.all("svg"):
        assert svg.attributes["role"] == "img"
        assert svg.attributes["aria-label"]
    levels = [int(tag[1]) for tag in re.findall(r"<(h[1-6])", text)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert "@media print" in text


def luminance(colour: str) -> float:
    colour = "".join(2 * letter for letter in colour) if len(colour) == 3 else colour
    channels = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_are_told_apart_in_light_and_dark(made):
    """WCAG 2.2: 4.5 to 1 for text (1.4.3), 3 to 1 for graphics (1.4.11)."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): #([0-9a-f]+);", block)) for block in re.findall(r":root \{([^}]+)\}", made[-1])
    )
    assert set(light) == set(dark)
    for theme in (light, dark):
        paper, soft = luminance(theme["paper"]), luminance(theme["soft"])
        for name, least in (("ink", 7), ("muted", 4.5), ("series-1", 3), ("series-2", 3), ("series-3", 3)):
            for ground in (paper, soft):
                bright, dim = sorted((luminance(theme[name]), ground), reverse=True)
                assert (bright + 0.05) / (dim + 0.05) >= least, name


def test_what_comes_from_data_is_text(tmp_path):
    nasty = """<script>alert(1)</script> & "quotes" 'and' </figcaption>{{ 7 * 7 }}"""
    sample = SampleInfo(nasty, "a.jpg", nasty, nasty, False, (8, 8), 20)
    rows = np.array([[0, 10, 20, 20, 0, 0]])
    about = {
        "dataset": nasty,
        "split": nasty,
        "name": nasty,
        "command": nasty,
        nasty: nasty,
        "versions": {nasty: nasty},
    }
    evaluation = Evaluation(about, [sample], {"lavt": rows})
    image, mask = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool)
    panel = Panel(Choice("best", 0, sample, "lavt", 0.5), image, mask, mask)
    path = write_page(tmp_path, evaluation, summarise_evaluation(evaluation, 0), [panel])
    root = read(path)
    assert not root.all("script")
    assert root.all("h1")[0].text == f"{nasty} {nasty}"
    assert root.all("span", **{"class": "expression"})[0].text == f"“{nasty}”"
    assert root.all("img")[0].attributes["alt"] == f"image: {nasty}"
    assert root.all("pre")[0].text == nasty
    assert table(root, "Scores per category under lavt")[1][0] == nasty
    assert root.all("title")[0].text == f"{nasty} {nasty}: {nasty}"
    assert "49" not in root.all("pre")[0].text


def facts(root: Element) -> dict[str, str]:
    (listed,) = root.all("dl", **{"class": "facts"})
    return {item.all("dt")[0].text: item.all("dd")[0].text for item in listed.all("div")}


CHOSEN = {"lr": 0.002, "val": {"0.0005": 0.3, "0.002": 0.5, "0.008": 0.4}, "by": "val/mIoU, 150 steps, seed 0"}


@pytest.mark.parametrize(
    ("about", "rate"),
    [
        ({"lr": 0.002, "lr_choice": CHOSEN}, "0.002, chosen from 0.0005, 0.002, 0.008 by val/mIoU, 150 steps, seed 0"),
        ({"lr": 0.1, "lr_choice": CHOSEN}, "0.1"),
        ({"lr": 0.1, "lr_choice": None}, "0.1"),
    ],
)
def test_the_learning_rate_stands_with_what_it_was_chosen_from(tmp_path, about, rate):
    evaluation = make_evaluation(4, (), protocols=["lavt"], **about)
    said = facts(read(write_page(tmp_path, evaluation, summarise_evaluation(evaluation, 0), [])))
    assert said["Learning rate"] == rate
    assert "Lr choice" not in said


def test_facts_known_and_unknown(tmp_path, made):
    about = {
        "seed": 12345,
        "some_new_key": 12345,
        "versions": {"torch": "2.14.1", "python": "3.11.7"},
        "method_share": 0.024,
        "learned_parameters": {"method": 4698624, "head": 1000},
        "checkpoint": "best.ckpt",
        "nothing": None,
        "flag": True,
        "ratio": 0.123456789,
        "many": [1000, "b"],
    }
    evaluation = make_evaluation(4, (), protocols=["lavt"], **about)
    root = read(write_page(tmp_path, evaluation, summarise_evaluation(evaluation, 0), []))
    said = facts(root)
    assert said == {
        "Checkpoint": "best.ckpt",
        "Seed": "12345",
        "Image size": "480 px",
        "Trainable parameters": "method 4,698,624; head 1,000",
        "Method's share of the towers": "2.40 %",
        "Versions": "torch 2.14.1; python 3.11.7",
        "Some new key": "12,345",
        "Nothing": DASH,
        "Flag": "yes",
        "Ratio": "0.123457",
        "Many": "1,000, b",
    }
    assert next(iter(said)) == "Checkpoint"
    assert list(said)[-5:] == ["Some new key", "Nothing", "Flag", "Ratio", "Many"]
    assert root.all("p", **{"class": "name"})[0].text == "a run"
    assert not root.all("section", id="reproduce")
    assert "interval" not in root.all("caption")[0].text
    assert made[3].all("pre")[0].text == "python eval.py 'ckpt=a b.ckpt' split=test"


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({}, False),
        ({"expressions": "real"}, False),
        ({"expressions": "shuffled with seed 0"}, True),
    ],
)
def test_shuffled_expressions_are_said_at_the_top(tmp_path, about, expected):
    evaluation = make_evaluation(2, categories=(), protocols=["lavt"], **about)
    root = read(write_page(tmp_path, evaluation, summarise_evaluation(evaluation, 0), []))
    assert bool(root.all("header")[0].all("p", **{"class": "warning"})) == expected


def test_masks_made_elsewhere_bring_their_own_explanation(tmp_path):
    evaluation = make_evaluation(2, categories=(), protocols=["lavt", "detris"])
    evaluation = dataclasses.replace(evaluation, about={"notes": {"detris": "masks as given"}})
    root = read(write_page(tmp_path, evaluation, summarise_evaluation(evaluation, 0), []))
    (listed,) = root.all("dl", **{"class": "protocols"})
    lavt, detris = (item.all("dd")[0].text for item in listed.all("div"))
    assert detris == "Masks as given. A hit at X is IoU > X, X in float32; IoU is I / (U + 1e-6) (CRIS, ETRIS, DETRIS)."
    assert lavt.startswith("Compared at the network's input size")
    assert "Notes" not in facts(root)


def test_a_dataset_without_categories_has_no_such_section(tmp_path):
    evaluation = make_evaluation(6, categories=(), protocols=["lavt"])
    panels = drawn(evaluation, 1)
    root = read(write_page(tmp_path, evaluation, summarise_evaluation(evaluation, 0), panels))
    assert not root.all("section", id="categories")
    captions = [figure.all("figcaption")[0].text for figure in root.all("figure", **{"class": "panel"})]
    assert all(caption.endswith(f"id {p.choice.sample.id}") for caption, p in zip(captions, panels, strict=True))


def test_kinds_of_expressions_have_a_section_where_there_are_some(tmp_path, made):
    assert not made[3].all("section", id="kinds")
    evaluation, summary = written_by_hand()
    summary["kinds"] = {"lavt": {"place": scores(0.4321, 7)}}
    root = read(write_page(tmp_path, evaluation, summary, []))
    (section,) = root.all("section", id="kinds")
    assert table(section, "Scores per kind of expression under lavt")[1][:3] == ["place", "7", "43.21"]


@pytest.mark.parametrize("no_target", [0, 3])
def test_a_page_of_no_targets_has_tables_of_dashes(tmp_path, no_target):
    evaluation = make_evaluation(0, no_target=no_target)
    root = read(write_page(tmp_path, evaluation, summarise_evaluation(evaluation, 0), []))
    lines = {line[0]: line[1:] for line in table(root, "Scores in percent")}
    assert lines["mIoU"] == [DASH] * 3
    assert lines["samples (n)"] == ["0"] * 3
    assert ("N-acc" in lines) == bool(no_target)
    assert not root.all("svg")
    assert not root.all("section", id="panels")


def test_the_summary_as_json_makes_the_same_page(tmp_path):
    """`metrics.json` has null where there is no value."""
    evaluation = make_evaluation(5, CATEGORIES[:2], no_target=1, protocols=["lavt"])
    summary = summarise_evaluation(evaluation, 5)
    stored = json.loads(json.dumps(summary).replace("NaN", "null"))
    first = write_page(tmp_path / "a", evaluation, summary, []).read_bytes()
    assert write_page(tmp_path / "b", evaluation, stored, []).read_bytes() == first


def test_many_or_large_panels_get_smaller_tiles(tmp_path, monkeypatch):
    evaluation = make_evaluation(1, categories=(), protocols=["lavt"])
    summary = summarise_evaluation(evaluation, 0)
    panels = drawn(evaluation, 1, side=160, noise=100)  # noise, the worst there is
    sizes = []
    for budget in (page.PICTURES, 45_000, 0):
        monkeypatch.setattr(page, "PICTURES", budget)
        images = read(write_page(tmp_path, evaluation, summary, panels)).all("img")
        assert len(images) == 4
        assert sum(len(image.attributes["src"]) for image in images) <= budget * 4 / 3 or budget == 0
        sizes.append(picture(images[0]).size)
    assert sizes == [(320, 320), (160, 160), (96, 96)]  # the last ones are as small as they get


def test_a_page_stays_below_three_megabytes(made):
    *_, root, text = made
    pictures = sum(len(image.attributes["src"]) for image in root.all("img"))
    assert len(text.encode()) - pictures + page.PICTURES * 4 / 3 < 3_000_000


def test_tall_images_keep_their_shape(tmp_path):
    evaluation = make_evaluation(1, categories=(), protocols=["lavt"])
    (choice,) = choose_panels(evaluation, "lavt", 1)
    mask = np.zeros((800, 200), bool)
    mask[400, 100] = True
    panel = Panel(choice, np.full((800, 200, 3), 90, np.uint8), mask, ~mask)
    image, truth, *_ = map(
        picture, read(write_page(tmp_path, evaluation, summarise_evaluation(evaluation, 0), [panel])).all("img")
    )
    assert image.size == (80, 320)
    difference = np.abs(np.asarray(truth).astype(int) - np.asarray(image)).max(-1)
    assert difference[160, 40] > 20  # a pixel of 800 rows is seen in 320
    assert difference[:150].max() < 20


def test_a_summary_of_another_evaluation_is_refused(tmp_path):
    evaluation = make_evaluation(3)
    summary = summarise_evaluation(make_evaluation(3, protocols=["lavt"]), 0)
    with pytest.raises(S4ecaError, match="has the protocols lavt and the evaluation lavt, original, detris"):
        write_page(tmp_path, evaluation, summary, [])
    assert not (tmp_path / "report.html").exists()
