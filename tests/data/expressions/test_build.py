import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from coco_scenes import HEIGHT, WIDTH, outline, rle, write_coco
from s4eca.data.expressions.build import RECORD, build_dataset
from s4eca.data.expressions.grammar import KINDS, Margins
from s4eca.data.masks import RleMask
from s4eca.data.readers.jsonl import read_jsonl
from s4eca.data.readers.refer import read_refer
from s4eca.errors import S4ecaError
from said import Thing, check

SPLITS = ("train", "val", "test")


def measured(path):
    """What is in each image by file name, measured here."""
    content = json.loads(path.read_text())
    names = {row["id"]: row["name"].replace("_", " ").lower() for row in content["categories"]}
    things = defaultdict(list)
    for row in content["annotations"]:
        shape = row["segmentation"]
        mask = RleMask(shape if isinstance(shape, list) else [shape], (HEIGHT, WIDTH)).decode()
        y, x = np.argwhere(mask).mean(axis=0) + 0.5
        thing = Thing(row["id"], names[row["category_id"]], x / WIDTH, y / HEIGHT, int(mask.sum()))
        things[f"{row['image_id']}.png"].append((thing, mask))
    return things


def read(root, reader=read_refer):
    return {split: reader(root, split, expected={}) for split in SPLITS}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    path, folder = write_coco(root)
    report = build_dataset(path, folder, root / "boxes", per_kind=3, block=2)
    return path, folder, root / "boxes", report


def test_every_reference_is_true_of_its_mask(built):
    path, _, out, report = built
    things = measured(path)
    kinds = Counter()
    for split, references in read(out).items():
        for item in references:
            known = things[item.image.name]
            mask = item.mask.decode()
            (target,) = (thing for thing, own in known if np.array_equal(own, mask))
            kind = check(item.expression, target, [thing for thing, _ in known], Margins(), (), WIDTH / HEIGHT)
            assert item.kind == ("relation" if kind == "closest" else kind)
            assert item.category.replace("_", " ").lower() == target.name
            kinds[item.kind, split] += 1
    assert {key[0] for key in kinds} == set(KINDS)
    assert report.expressions == {kind: {split: kinds[kind, split] for split in SPLITS} for kind in KINDS}
    assert report.instances == sum(map(len, things.values()))


def test_neighbours_share_a_split(built):
    _, _, out, report = built
    images = {split: {int(item.image.stem) for item in items} for split, items in read(out).items()}
    assert {split: len(names) for split, names in images.items()} == report.images
    blocks = sorted(set.union(*images.values()))
    blocks = [set(blocks[start : start + 2]) for start in range(0, len(blocks), 2)]
    assert all(sum(block <= names for names in images.values()) == 1 for block in blocks)


def test_the_same_arguments_give_the_same_files(built, tmp_path):
    path, folder, out, _ = built
    build_dataset(path, folder, tmp_path / "boxes", per_kind=3, block=2)
    build_dataset(path, folder, tmp_path / "other", name="boxes", per_kind=3, block=2, seed=1)
    for file in ("boxes/refs(unc).p", "boxes/instances.json", RECORD):
        assert (tmp_path / "boxes" / file).read_bytes() == (out / file).read_bytes()
        assert (tmp_path / "other" / file).read_bytes() != (out / file).read_bytes()
    assert (out / "images/boxes/JPEGImages/1.png").is_symlink()


def test_jsonl_holds_the_same(built, tmp_path):
    path, folder, out, _ = built
    build_dataset(path, folder, tmp_path / "out", "jsonl", name="boxes", per_kind=3, block=2, how="copy")
    assert not (tmp_path / "out/images/1.png").is_symlink()
    assert (tmp_path / "out/boxes_train.jsonl").is_file()
    for split, items in read(tmp_path / "out", read_jsonl).items():
        others = read(out)[split]
        fields = ("id", "expression", "category", "kind", "split")
        assert [[getattr(item, name) for name in fields] for item in items] == [
            [getattr(item, name) for name in fields] for item in others
        ]
        assert all(np.array_equal(a.mask.decode(), b.mask.decode()) for a, b in zip(items, others, strict=True))


def test_at_most_so_many_of_a_kind_per_image(built, tmp_path):
    path, folder, _, more = built
    report = build_dataset(path, folder, tmp_path / "one", per_kind=1, block=2)
    counts = Counter((item.image.name, item.kind) for items in read(tmp_path / "one").values() for item in items)
    assert set(counts.values()) == {1}
    beyond = [made.left_out.counts.get("expressions beyond --per-kind", 0) for made in (report, more)]
    totals = [sum(sum(kind.values()) for kind in made.expressions.values()) for made in (report, more)]
    assert totals[0] + beyond[0] == totals[1] + beyond[1]


def test_the_record_says_what_made_it(built):
    path, _, out, report = built
    record = json.loads((out / RECORD).read_text())
    assert record["annotations"]["file"] == path.name
    assert record["settings"]["per_kind"] == 3
    assert record["settings"]["margins"]["place"] == Margins().place
    assert record["expressions"] == report.expressions


def spoil(image, category, **fields):
    """Adds an annotation with something wrong to an image."""

    def edit(content):
        row = {"id": 900, "image_id": image, "category_id": category, "segmentation": outline(40, 20, 60, 30)}
        content["annotations"].append(row | fields)

    return edit


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"iscrowd": 1}, "crowds, of which no instance can be told"),
        ({"iscrowd": 1, "segmentation": {"size": [60, 90], "counts": [0, 60, 5340]}}, "crowds, of which no"),
        ({"segmentation": []}, "instances without a mask"),
        ({"segmentation": [[1, 1, 5, 5]]}, "instances whose mask cannot be used"),
        ({"segmentation": [[900, 900, 950, 900, 950, 950]]}, "instances whose mask cannot be used"),
        ({"segmentation": {"size": [90, 60], "counts": [0, 60, 5340]}}, "instances whose mask cannot be used"),
        ({"segmentation": {"size": [60, 90], "counts": [5400]}}, "instances with an empty mask"),
    ],
)
def test_an_unusable_instance_is_counted_and_silences_its_class_in_its_image(tmp_path, fields, reason):
    path, folder = write_coco(tmp_path, edit=spoil(5, 7, **fields))
    report = build_dataset(path, folder, tmp_path / "out", block=2, per_kind=9)
    (line,) = (line for line in report.left_out.lines() if reason in line)
    assert line.startswith("1 ")
    assert "annotation 900" in line
    about = [item.expression for items in read(tmp_path / "out").values() for item in items if item.image.stem == "5"]
    assert about
    assert not any("harbor" in text for text in about)


def test_annotations_of_one_mask_are_one_instance(tmp_path):
    def edit(content):
        content["annotations"] += [row | {"id": 1000 + row["id"]} for row in content["annotations"]]

    path, folder = write_coco(tmp_path / "a")
    once = build_dataset(path, folder, tmp_path / "once", block=2)
    path, folder = write_coco(tmp_path / "b", edit=edit)
    twice = build_dataset(path, folder, tmp_path / "twice", block=2)
    assert twice.expressions == once.expressions
    assert twice.left_out.counts["annotations that repeat another one's class and mask"] == once.instances


def test_names_that_turns_change_are_left_out(tmp_path):
    path, folder = write_coco(tmp_path, edit=lambda content: content["categories"][0].update(name="upper deck"))
    report = build_dataset(path, folder, tmp_path / "out", block=2)
    (line,) = (line for line in report.left_out.lines() if "a turned image would change" in line)
    assert "'upper deck'" in line
    assert {item.category for items in read(tmp_path / "out").values() for item in items} == {"harbor", "Storage_tank"}


def arranged(content, *boxes):
    """Puts the same boxes (category, box) into every image."""
    content["annotations"] = [
        {"id": 10 * image["id"] + place, "image_id": image["id"], "category_id": category, "segmentation": rle(*box)}
        for image in content["images"]
        for place, (category, box) in enumerate(boxes)
    ]


def test_words_that_may_mean_a_height_are_left_out(tmp_path):
    def edit(content):
        content["categories"][0]["name"], content["categories"][2]["name"] = "bridge", "road"
        arranged(content, (1, (40, 10, 50, 20)), (1, (40, 45, 50, 55)), (7, (38, 30, 52, 36)))

    path, folder = write_coco(tmp_path, edit=edit)
    report = build_dataset(path, folder, tmp_path / "out", block=2)
    (line,) = report.left_out.lines()
    assert line.startswith("40 expressions whose words may change")
    assert line.endswith("(the first: 'the bridge above the road')")
    assert "the bridge at the top" in {item.expression for item in read(tmp_path / "out")["train"]}


def test_missing_images(tmp_path):
    path, folder = write_coco(tmp_path)
    (folder / "4.png").unlink()
    with pytest.raises(S4ecaError, match=r"1 of 20 images of .* are missing \(.*4\.png\): .*--skip-missing"):
        build_dataset(path, folder, tmp_path / "out", block=2)
    report = build_dataset(path, folder, tmp_path / "out", block=2, skip_missing=True)
    assert report.left_out.counts["images that are not in the folder"] == 1
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(S4ecaError, match=r"20 of 20 images"):
        build_dataset(path, folder, tmp_path / "other", block=2, skip_missing=True)


def test_one_class_and_one_instance_of_each(tmp_path):
    def one_class(content):
        content["annotations"] = [row for row in content["annotations"] if row["category_id"] == 1]

    def one_each(content):
        first = {(row["image_id"], row["category_id"]): row for row in content["annotations"]}
        content["annotations"] = list(first.values())

    for name, edit, kinds in (("a", one_class, set(KINDS) - {"relation"}), ("b", one_each, {"class"})):
        path, folder = write_coco(tmp_path / name, edit=edit)
        report = build_dataset(path, folder, tmp_path / name / "out", block=2)
        assert {kind for kind, counts in report.expressions.items() if sum(counts.values())} == kinds


def change(part, **fields):
    return lambda content: content[part][3].update(fields)


def without_masks(content):
    for row in content["annotations"]:
        row["segmentation"] = []


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("annotations", image_id=99), "Annotation 4 of .* has image_id 99, which the file does not list"),
        (change("annotations", category_id=99), "Annotation 4 of .* has category_id 99"),
        (change("images", width=91), r"4\.png has 90 x 60 pixels and .* says 91 x 60 \(width x height\)"),
        (change("images", file_name="3.png"), r"3\.png twice, as image 3 and image 4"),
        (change("annotations", id=3), "two different rows of annotations under the id 3"),
        (without_masks, "annotations and none of them a mask"),
        (lambda content: content.update(annotations=[]), "has no annotations"),
        (lambda content: content.pop("categories"), "it has no categories"),
        (lambda content: content["annotations"][0].pop("id"), "a row of annotations has no id"),
        (
            lambda content: [row.update(iscrowd=1) for row in content["annotations"]],
            r"No expression can be made from .*crowds.*20 images about which nothing can be said",
        ),
    ],
)
def test_files_that_contradict_themselves_or_their_images(tmp_path, edit, message):
    path, folder = write_coco(tmp_path, edit=edit)
    with pytest.raises(S4ecaError, match=message):
        build_dataset(path, folder, tmp_path / "out", block=2)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_annotations(tmp_path):
    path, folder = write_coco(tmp_path)
    whole = path.read_text()
    for text in (whole[:-30], "[]", "", "nothing"):
        path.write_text(text)
        with pytest.raises(S4ecaError, match="cannot be read as COCO annotations"):
            build_dataset(path, folder, tmp_path / "out")
    path.unlink()
    with pytest.raises(S4ecaError, match=r"annotations\.json cannot be read"):
        build_dataset(path, folder, tmp_path / "out")
    with pytest.raises(S4ecaError, match="There is no folder"):
        build_dataset(path, folder / "no", tmp_path / "out")


def test_a_damaged_image(tmp_path):
    path, folder = write_coco(tmp_path)
    (folder / "2.png").write_bytes(b"no image")
    with pytest.raises(S4ecaError, match=r"2\.png"):
        build_dataset(path, folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "risbench"}, "not written as 'risbench': choose one of refer, jsonl"),
        ({"how": "move"}, "no images=move"),
        ({"per_kind": 0}, "give 1 or more"),
        ({"name": "rrsisd"}, "cannot be called 'rrsisd'"),
        ({"name": "a/b"}, "cannot be called 'a/b'"),
        ({"block": 0}, "block=0"),
        ({"val": 0.6, "test": 0.4}, "leave some for training"),
        ({"block": 10}, "make 2 blocks, too few for three splits"),
    ],
)
def test_arguments_of_no_use(tmp_path, options, message):
    path, folder = write_coco(tmp_path)
    with pytest.raises(S4ecaError, match=message):
        build_dataset(path, folder, tmp_path / "out", **options)


def test_a_folder_that_holds_something(tmp_path):
    path, folder = write_coco(tmp_path)
    (tmp_path / "out").mkdir()
    build_dataset(path, folder, tmp_path / "out", block=2)
    with pytest.raises(S4ecaError, match=r"out exists and is not empty"):
        build_dataset(path, folder, tmp_path / "out", block=2)


def test_a_thing_at_the_border_has_no_known_size(tmp_path):
    def edit(content):
        arranged(content, (1, (10, 10, 20, 20)), (1, (40, 30, 89, 50)))

    path, folder = write_coco(tmp_path, edit=edit)
    report = build_dataset(path, folder, tmp_path / "out", block=2, per_kind=9)
    totals = {kind: sum(counts.values()) for kind, counts in report.expressions.items()}
    assert totals == {"class": 0, "place": 20, "extreme": 80, "size": 0, "ordinal": 0, "relation": 0}


def test_images_in_folders_keep_them(tmp_path):
    def edit(content):
        for row in content["images"]:
            row["file_name"] = f"{row['id'] % 2}/{row['file_name']}"

    path, folder = write_coco(tmp_path, edit=edit)
    for number in range(1, 21):
        (folder / str(number % 2)).mkdir(exist_ok=True)
        (folder / f"{number}.png").rename(folder / str(number % 2) / f"{number}.png")
    build_dataset(path, folder, tmp_path / "out", block=2)
    paths = {item.image for items in read(tmp_path / "out").values() for item in items}
    assert {path.parent.name for path in paths} == {"0", "1"}
    assert all(Image.open(path).getpixel((0, 0))[0] == int(path.stem) for path in paths)
