"""Text, names and left-over files as users' datasets have them: what is read, what is refused, and the audit agrees.

After public reports: byte order marks (02), lines of phrase files (18), hidden files (01), names of images (26) and
NumPy numbers in refs (13).
"""

import json
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fake_isaid import write_scenes
from layouts import box_mask, rle, write_jsonl, write_refsegrs, write_risbench, write_rrsis_d
from s4eca.data import LAYOUTS, convert, detect_layout
from s4eca.data.audit import audit
from s4eca.data.masks import RleMask
from s4eca.data.semantic.isaid import read_isaid
from s4eca.data.semantic.patches import cut_patches
from s4eca.errors import S4ecaError

pytestmark = pytest.mark.filterwarnings("ignore:.*are expected")
MARK = b"\xef\xbb\xbf"
WRITTEN = {
    "rrsis_d": write_rrsis_d,
    "risbench": write_risbench,
    "refsegrs": write_refsegrs,
    "jsonl": lambda root: write_jsonl(root, name="{split}.jsonl"),
}
SPLITS = {"train": 4, "val": 2, "test": 2}
# what the audit finds of any data in these layouts
ORDINARY = {"split-size", "box-convention", "seen-in-train", "rle-in-list", "area", "misspelt-key", "box-off-mask"}


def read(root, name=None):
    layout = LAYOUTS[name or detect_layout(root)]
    return {split: layout.reader(root, split, expected={}) for split in SPLITS}


def texts(root):
    return [path for pattern in ("*.txt", "*.jsonl", "*.json") for path in sorted(root.rglob(pattern))]


def change_bytes(root, change):
    for path in texts(root):
        path.write_bytes(change(path.read_bytes()))


def change_lines(root, change):
    """Writes every line of the phrase files as `change(name, expression)`."""
    for path in root.glob("output_phrase_*.txt"):
        lines = [change(*line.split(" ", 1)) for line in path.read_text().splitlines()]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")


def change_names(root, change):
    """Changes every `file_name` of the annotations."""
    for path in texts(root):
        pattern = re.compile(r'"file_name": ("[^"]*")')
        text = pattern.sub(lambda m: f'"file_name": {json.dumps(change(json.loads(m[1])))}', path.read_text())
        path.write_text(text, encoding="utf-8")


def codes(root, name):
    """The audit's findings that are not ordinary, as {code: text}."""
    return {
        finding.code: finding.text for finding in audit(root, name, workers=1).findings if finding.code not in ORDINARY
    }


def assert_read_as(root, name, expected):
    """The readers, the audit and a conversion give the references `expected`, every image and mask with them."""
    assert detect_layout(root) == name
    found = read(root)
    for split in SPLITS:
        for item, wanted in zip(found[split], expected[split], strict=True):
            assert (item.id, item.expression, item.category) == (wanted.id, wanted.expression, wanted.category)
            assert item.image.samefile(wanted.image)
            assert np.array_equal(item.mask.decode(), wanted.mask.decode())
    assert codes(root, name) == {}
    records = [(record.id, record.expression, record.image) for record in audit(root, name, workers=1).records]
    assert records == [(item.id, item.expression, item.image) for items in found.values() for item in items]


def assert_refused(root, name, words):
    """Reader and audit refuse alike, with the same words."""
    with pytest.raises(S4ecaError, match=words) as error:
        read(root, name)
    report = audit(root, name, workers=1)
    assert report.failed
    assert "again" not in str(error.value)
    return str(error.value), {finding.code: finding for finding in report.findings}


@pytest.fixture
def written(tmp_path):
    def write(name):
        found = read(WRITTEN[name](tmp_path / "set"))
        for items in found.values():  # masks are read when they are asked for, and the files will change
            items[:] = [replace(item, mask=RleMask([rle(item.mask.decode())])) for item in items]
        return tmp_path / "set", found

    return write


@pytest.mark.parametrize("name", WRITTEN)
def test_byte_order_marks(written, name):
    root, expected = written(name)
    change_bytes(root, lambda content: MARK + content)
    assert texts(root)
    assert_read_as(root, name, expected)


@pytest.mark.parametrize("name", ["refsegrs", "risbench", "jsonl"])
def test_files_with_marks_that_were_put_together(written, name):
    root, expected = written(name)
    change_bytes(root, lambda content: b"".join(MARK + line for line in content.splitlines(keepends=True)))
    assert_read_as(root, name, expected)


@pytest.mark.parametrize("name", ["rrsis_d", "jsonl"])
def test_marks_inside_of_texts(written, tmp_path, name):
    """As they come from a table whose first cell was pasted: in sentences, names, ids and categories."""
    root, expected = written(name)
    for path in texts(root):
        text = re.sub(r'"(sent|file_name|category_name|name|split)": "', r'"\1": "\\ufeff', path.read_text())
        path.write_text(text)
    refs = root / "rrsisd/refs(unc).p"
    if name == "rrsis_d":
        entries = pickle.loads(refs.read_bytes())
        for entry in entries:
            entry["split"] += "\ufeff"
            entry["sentences"][0]["raw"] = f"\ufeff{entry['sentences'][0]['raw']}"
        refs.write_bytes(pickle.dumps(entries))
    assert_read_as(root, name, expected)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize(
    ("codec", "encoding"),
    [("gbk", "GBK"), ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("latin-1", "WINDOWS-1252")],
)
def test_other_encodings_are_named(written, name, codec, encoding):
    root, _ = written(name)
    said = "près de l'église" if codec == "latin-1" else "左边的红色屋顶"
    for path in texts(root):
        text = path.read_text().replace("harbor", said).replace("parking", said)
        text = text.replace('"ship"', f'"{said}"').replace("on the left", said)
        path.write_bytes(text.encode(codec))
    _, found = assert_refused(
        root, name, rf"probably {encoding} .*`iconv -f {encoding} -t UTF-8 .*{texts(root)[0].suffix}"
    )
    code = "bad-entry" if name != "rrsis_d" else "unreadable-file"
    assert f"iconv -f {encoding} -t UTF-8" in found[code].text


LINES = {
    "tab": lambda name, words: f"{name}\t{words}",
    "full-width blank": lambda name, words: f"{name}\u3000{words}",
    "no-break blank": lambda name, words: f"{name}\xa0{words}",
    "two blanks": lambda name, words: f"{name}  {words}",
    "blanks around": lambda name, words: f"  {name} {words} \t",
    "Windows": lambda name, words: f"{name} {words}\r",
    "blank lines": lambda name, words: f"{name} {words}\n\n \u3000",
    "brackets": lambda name, words: f"<{name}>{words}",
    "folder": lambda name, words: f".\\images\\{name} {words}",
}


@pytest.mark.parametrize("name", ["refsegrs", "risbench"])
@pytest.mark.parametrize("kind", LINES)
def test_lines_of_phrase_files(written, name, kind):
    root, expected = written(name)
    change_lines(root, LINES[kind])
    assert_read_as(root, name, expected)


@pytest.mark.parametrize("name", ["refsegrs", "risbench", "jsonl"])
def test_lines_that_end_as_on_old_macs(written, name):
    root, expected = written(name)
    change_bytes(root, lambda content: content.replace(b"\n", b"\r"))
    assert_read_as(root, name, expected)


@pytest.mark.parametrize("ending", [".tif", ".TIF", ".tiff", ".png"])
def test_ids_of_refsegrs_with_their_ending(written, ending):
    root, expected = written("refsegrs")
    change_lines(root, lambda name, words: f"{name}{ending} {words}")
    if ending == ".png":  # the files decide: these were converted, as a name with this ending says
        assert detect_layout(root) == "risbench"
        assert [item.id for item in read(root, "refsegrs")["val"]] == [item.id for item in expected["val"]]
        return
    assert_read_as(root, "refsegrs", expected)


def test_an_id_that_only_looks_as_if_it_had_an_ending(written):
    root, _ = written("refsegrs")
    for folder in ("images", "masks"):
        (root / folder / "45.tif").rename(root / folder / "45.png.tif")
    path = root / "output_phrase_val.txt"
    path.write_text(path.read_text().replace("45 ", "45.png "))
    assert [item.id for item in read(root, "refsegrs")["val"]] == ["45.png", "46"]
    assert codes(root, "refsegrs") == {}


@pytest.mark.parametrize("name", ["refsegrs", "risbench"])
@pytest.mark.parametrize("separator", [",", ";", "|"])
def test_a_line_without_white_space_is_shown(written, name, separator):
    root, _ = written(name)
    change_lines(root, lambda name, words: f"{name}{separator}{words}")
    first = (root / "output_phrase_train.txt").read_text().splitlines()[0]
    said, found = assert_refused(root, name, r"Line 1 of .*output_phrase_train\.txt")
    assert first in said
    assert "bad-entry" in found


LITTER = (
    "~$refs(unc).p",
    "~$train.jsonl",
    "._refs(unc).p",
    "._instances.json",
    "._train.jsonl",
    "._val.jsonl",
    "._output_phrase_train.txt",
    ".DS_Store",
)


@pytest.mark.parametrize("name", WRITTEN)
def test_hidden_files_beside_the_others(written, tmp_path, name):
    root, expected = written(name)
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for litter in (*LITTER, "._00101.jpg", "._41.tif", "Thumbs.db", "desktop.ini"):
            (folder / litter).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(40) + b"\xb0\xe9made up")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX/refs(unc).p").write_bytes(b"")
    (root / ".old").mkdir()
    (root / ".old/refs(unc).p").write_bytes(b"")
    assert_read_as(root, name, expected)
    convert(root, tmp_path / "out", "jsonl")
    assert [item.id for item in read(tmp_path / "out")["test"]] == [item.id for item in expected["test"]]
    if name == "rrsis_d":
        assert len(LAYOUTS["refer"].reader(root, "val", expected={})) == 2


def test_only_hidden_files_are_no_dataset(tmp_path):
    for litter in LITTER:
        (tmp_path / litter).write_bytes(b"\0\5\x16\7")
    with pytest.raises(S4ecaError, match=r"no layout that is known.*holds nothing"):
        detect_layout(tmp_path)
    with pytest.raises(S4ecaError, match=r"val split was not found"):
        LAYOUTS["jsonl"].reader(tmp_path, "val")


NAMES = {
    "backslashes": lambda name: f"images\\{name}",
    "folder": lambda name: f"images/{name}",
    "dots": lambda name: f"./images/../images/{name}",
    "beside": lambda name: f"../images/{name}",
    "another machine": lambda name: f"/home/me/set/images/rrsisd/JPEGImages/{name}",
    "Windows": lambda name: f"D:\\set\\JPEGImages\\{name}",
    "capitals": str.upper,
    "address": lambda name: f"https://host/images/{name.replace('.', '%2E')}",
}


@pytest.mark.parametrize("name", ["rrsis_d", "jsonl"])
@pytest.mark.parametrize("kind", NAMES)
def test_names_that_were_written_elsewhere(written, name, kind):
    root, expected = written(name)
    change_names(root, NAMES[kind])
    assert_read_as(root, name, expected)


@pytest.mark.parametrize("name", WRITTEN)
def test_files_with_endings_in_capitals_and_names_with_dots(written, name):
    root, _ = written(name)
    for path in sorted(root.rglob("*")):
        if path.suffix in (".jpg", ".png", ".tif"):
            path.rename(path.with_name(f"a.b.{path.stem}{path.suffix.upper()}"))
    change_names(root, lambda file: f"a.b.{file}")
    change_lines(root, lambda first, words: f"a.b.{first} {words}")
    found = read(root)
    assert all(item.image.is_file() for items in found.values() for item in items)
    assert [int(item.mask.decode().sum()) for item in found["val"]] == [54, 54]
    assert codes(root, name) == {}
    if name in ("risbench", "refsegrs"):
        assert all(item.id == f"a.b.{item.image.stem.removeprefix('a.b.')}" for item in found["val"])


def test_ids_without_image_ids_are_the_stems_whatever_the_folder(written):
    root, _ = written("jsonl")
    change_names(root, lambda name: f"images\\{name}")
    change_bytes(root, lambda content: re.sub(rb'"image_id": \d+, ', b"", content))
    assert [item.id for item in read(root)["val"]] == ["00205", "00206"]
    assert codes(root, "jsonl") == {}


@pytest.mark.parametrize("change", [lambda name: f"train/{name}", lambda name: name.replace(".jpg", ".png")])
@pytest.mark.parametrize("name", ["rrsis_d", "jsonl"])
def test_names_of_no_certain_meaning_are_shown_beside_what_is_there(written, name, change):
    """`train/7.jpg` and `val/7.jpg` may be two images, of which one folder can hold one."""
    root, expected = written(name)
    change_names(root, change)
    said, found = assert_refused(root, name, r"holds 8 \.jpg files, such as 00\d\d1\.jpg")
    assert change(expected["train"][0].image.name).split("/")[-1] in said
    assert "images=" not in said or "correct file_name" in said
    assert "holds 8 .jpg files" in found["missing-image"].text


@pytest.mark.parametrize("name", ["refsegrs", "risbench"])
def test_missing_files_of_phrases_are_shown_beside_what_is_there(written, name):
    root, _ = written(name)
    for path in sorted(root.rglob("*.tif")) + sorted(root.rglob("*.png")):
        Image.open(path).convert("L").save(path.with_suffix(".bmp"))
        path.unlink()
    _, found = assert_refused(root, name, r"4 of 4 files are missing.*holds 8 \.bmp files, such as")
    assert "holds 8 .bmp files" in found["missing-image"].text
    assert "holds 8 .bmp files" in found["missing-mask"].text


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_refs_with_numpy_numbers(written, protocol):
    root, expected = written("rrsis_d")
    path = root / "rrsisd/refs(unc).p"
    entries = pickle.loads(path.read_bytes())
    for entry in entries:
        entry |= {key: np.int64(entry[key]) for key in ("ref_id", "ann_id", "image_id", "category_id")}
        entry["sent_ids"] = np.array(entry["sent_ids"])
        entry["split"] = np.str_(entry["split"])
    path.write_bytes(pickle.dumps(entries, protocol))
    assert_read_as(root, "rrsis_d", expected)


def test_isaid(tmp_path):
    scenes = write_scenes(tmp_path / "a", {"P1": (40, 50), "P2": (30, 60)})
    folder = tmp_path / "a/val/images"
    for path in sorted(folder.iterdir()):
        path.rename(path.with_suffix(".PNG"))
    for litter in (".DS_Store", "._P1.png", "Thumbs.db"):
        (folder / litter).write_bytes(b"\0\5\x16\7")
    found = read_isaid(tmp_path / "a", "val", patches=False)
    assert [(item.id, item.labels.name) for item in found] == [(id, f"{id}_instance_color_RGB.PNG") for id in scenes]
    for _ in range(2):
        assert cut_patches(tmp_path / "a", tmp_path / "out", "val", size=40, overlap=10).patches == 4
        (tmp_path / "out/img_dir/val/._P1_0_40_0_40.png").write_bytes(b"\0\5\x16\7")
    assert len(read_isaid(tmp_path / "out", "val")) == 4
    for path in folder.iterdir():
        path.rename(path.with_suffix(".bmp"))
    with pytest.raises(S4ecaError, match=r"is empty.*holds 7 \.bmp files, such as P1"):
        read_isaid(tmp_path / "a", "val")


def test_masks_are_found_as_images_are(written):
    root, _ = written("refsegrs")
    for number, path in enumerate(sorted((root / "masks").iterdir()), start=41):
        path.rename(path.with_suffix(".TIF"))
        assert path.stem == str(number)
    assert np.array_equal(read(root)["val"][0].mask.decode(), box_mask(45))
