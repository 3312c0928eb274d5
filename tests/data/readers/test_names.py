"""Names of images as other systems and other people write them."""

import tempfile
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4eca.data.readers.listing import Listing
from s4eca.data.readers.names import ImageFolder, below
from s4eca.folders import is_hidden


def folder(root, *names, name="photos"):
    for file in names:
        path = root / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return ImageFolder(root / name)


@pytest.mark.parametrize(
    "name",
    [
        "7.jpg",
        "./7.jpg",
        ".\\7.jpg",
        "photos/7.jpg",
        "photos\\7.jpg",
        "Photos/7.jpg",
        "images/7.jpg",
        "images\\rrsisd\\JPEGImages\\7.jpg",
        "./photos/../photos/7.jpg",
        "../photos/7.jpg",
        "/home/me/set/photos/7.jpg",
        "C:\\Users\\me\\photos\\7.jpg",
        "\\\\server\\share\\images\\7.jpg",
        "https://host/images/7.jpg",
        "file:///data/images/7.jpg",
        "7.JPG",
        " 7.jpg ",
        "\ufeff7.jpg",
    ],
)
def test_one_file_by_many_names(tmp_path, name):
    assert folder(tmp_path, "7.jpg", "8.jpg").find(name) == tmp_path / "photos/7.jpg"


@pytest.mark.parametrize(
    "name",
    ["9.jpg", "7.png", "7", "train/7.jpg", "C:\\data\\7.jpg", "/home/me/7.jpg", "x7.jpg", "", "/", "..", "photos"],
)
def test_what_is_not_certain_is_not_found(tmp_path, name):
    assert folder(tmp_path, "7.jpg", "07.jpg").find(name) is None


def test_folders_below_and_names_that_only_look_alike(tmp_path):
    images = folder(tmp_path, "a/7.jpg", "b/7.jpg", "b/8.jpg", "Q.jpg", "q.jpg", "é 1.tif", "50%25.png")
    assert images.find("a\\7.jpg") == tmp_path / "photos/a/7.jpg"
    assert images.find("photos/b/7.jpg") == tmp_path / "photos/b/7.jpg"
    assert images.find("a/8.jpg") is None
    assert images.find("8.jpg") is None
    assert images.find("q.jpg") == tmp_path / "photos/q.jpg"
    assert images.find("Q.JPG") is None  # it could be either
    assert images.find(unicodedata.normalize("NFD", "é 1.tif")) == tmp_path / "photos/é 1.tif"
    assert images.find("%C3%A9%201.TIF") == tmp_path / "photos/é 1.tif"
    assert images.find("50%25.png") == tmp_path / "photos/50%25.png"
    assert images.file("c\\9.jpg") == tmp_path / "photos/c/9.jpg"


def test_a_file_that_is_called_so_goes_first(tmp_path):
    images = folder(tmp_path, "a\\b.jpg", "images/7.jpg", "7.jpg", ".8.jpg")
    assert images.find("a\\b.jpg") == tmp_path / "photos/a\\b.jpg"
    assert images.find("images/7.jpg") == tmp_path / "photos/images/7.jpg"
    assert images.find(".8.jpg") == tmp_path / "photos/.8.jpg"
    elsewhere = tmp_path / "other/photos/7.jpg"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.touch()
    assert images.find(str(elsewhere)) == elsewhere
    assert ImageFolder(tmp_path / "absent").find("7.jpg") is None


PARTS = st.text(
    st.characters(codec="utf-8", exclude_characters='/\\<>:"|?*%\0\ufeff', exclude_categories=("C", "Z")), min_size=1
)
NAMES = PARTS.map(lambda text: text[:12]).filter(
    lambda text: not is_hidden(text) and unicodedata.is_normalized("NFC", text)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=5, unique_by=str.casefold), st.data())
def test_any_file_is_found_by_any_of_its_spellings_and_no_other_is(names, data):
    with tempfile.TemporaryDirectory() as root:
        folders = [data.draw(st.sampled_from(["", "a/", "a/b/"])) for _ in names]
        files = [f"{folder}{name}.tif" for folder, name in zip(folders, names, strict=True)]
        images = folder(Path(root), *files)
        for file in files:
            before = data.draw(st.sampled_from(["", "./", "photos/", "/home/me/images/", "c:/x/photos/", "x/../"]))
            spelling = before + file[:-3] + data.draw(st.sampled_from(["tif", "TIF"]))
            spelling = data.draw(st.sampled_from([str, quote]))(spelling).replace("c%3A", "c:")
            if data.draw(st.booleans()):
                spelling = spelling.replace("/", "\\")
            assert images.find(spelling) == Path(root, "photos", file)
        stranger = data.draw(NAMES)
        found = images.find(f"{stranger}.tif")
        assert found is None or found.name.casefold() == f"{stranger}.tif".casefold()


@given(st.text(), st.lists(st.sampled_from(["..", "a", "/", "\\", "C:"])))
def test_no_name_leads_out_of_the_folder(text, parts):
    found = below("/".join([*parts, text]))
    assert not Path(found).is_absolute()
    assert ".." not in Path(found).parts


def test_what_is_there_is_described(tmp_path):
    listing = Listing()
    folder(tmp_path, *(f"{n}.JPG" for n in range(12)), "a.png", "notes.txt", ".hidden.tif")
    assert (
        listing.describe(tmp_path / "photos/deeper/still")
        == f"{tmp_path / 'photos'} holds 12 .jpg files, such as 0.JPG"
    )
    assert listing.describe(tmp_path) == f"{tmp_path} holds photos"
    (tmp_path / "photos/empty").mkdir()
    assert listing.describe(tmp_path / "photos/empty").endswith("holds nothing")
