"""What leaves a truth unreadable or in doubt: the readers refuse it by name, and the audit calls the same an error."""

import json
import math
import multiprocessing
import re
import resource

import numpy as np
import pytest
import tifffile
from PIL import Image

from layouts import HEIGHT, SAMPLES, WIDTH, box_mask, rle, write_jsonl, write_refsegrs, write_rrsis_d
from s4eca.data import JsonlDataModule, read_jsonl, read_refer, read_refsegrs
from s4eca.data.audit import Severity, audit
from s4eca.data.audit.findings import ERRORS
from s4eca.data.dataset import ReferenceDataset
from s4eca.data.readers.refsegrs import RefSegRSDataModule
from s4eca.errors import S4ecaError

SQUARE = [4, 4, 20, 4, 20, 15, 4, 15]
PIXELS = HEIGHT * WIDTH

# what stands under `segmentation`, and words that say what is wrong with it
GEOMETRY = {
    "nan": ([[4, 4, math.nan, 4, 20, 15]], "not finite"),
    "infinity": ([[4, 4, math.inf, 4, 20, 15]], "not finite"),
    "minus infinity": ([[4, 4, -math.inf, 4, 20, 15]], "not finite"),
    "far": ([[4, 4, 2e8, 4, 20, 15]], "2e.08"),
    "far up": ([[4, -2e8, 20, 4, 20, 15]], "-2e.08"),
    "huge number": ([[4, 4, 10**400, 4, 20, 15]], "not finite"),
    "wholly outside": ([[90, 4, 99, 4, 99, 15]], "from 90, 4 to 99, 15"),
    "flat": (SQUARE, "a polygon is a list"),
    "box": ([[4, 4, 20, 15]], "4 numbers.*is it a box"),
    "flat box": ([4, 4, 20, 15], "a polygon is a list"),
    "empty part": ([[], SQUARE], "empty"),
    "five numbers": ([[4, 4, 20, 4, 20]], "odd count.* 5"),
    "nine numbers": ([[*SQUARE, 4]], "odd count.* 9"),
    "points": ([[[4, 4], [20, 4], [20, 15], [4, 15]]], r"\[4, 4\] where a number"),
    "points at part level": ([[4, 4], [20, 4], [20, 15]], "2 numbers"),
    "texts": ([["4", "4", "20", "4", "20", "15"]], "'4' where a number"),
    "booleans": ([[True, False, 20, 4, 20, 15]], "True where a number"),
    "nothing in a part": ([None], "None where"),
    "a number": (7, "7"),
    "a text": ("4 4 20 4", "4 4 20 4"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "no counts"),
    "no size": ({"counts": [PIXELS]}, "no size"),
    "negative run": ({"size": [HEIGHT, WIDTH], "counts": [PIXELS + 1, -1]}, "whole numbers of pixels"),
    "text run": ({"size": [HEIGHT, WIDTH], "counts": ["1", PIXELS - 1]}, "whole numbers of pixels"),
    "endless runs": ({"size": [HEIGHT, WIDTH], "counts": [2**63, 2**63, PIXELS]}, "add up"),
    "short": ({"size": [HEIGHT, WIDTH], "counts": [PIXELS - 1]}, "add up to 24x32"),
    "short, compressed": ({"size": [HEIGHT, WIDTH], "counts": "PPac0"}, "add up to 24x32"),
    "cut": ({"size": [HEIGHT, WIDTH], "counts": rle(box_mask(4))["counts"][:-1]}, "complete RLE|add up"),
    "broken characters": ({"size": [HEIGHT, WIDTH], "counts": "~é!"}, "complete RLE"),
    "huge": ({"size": [10**6, 10**6], "counts": [10**12]}, "pixels that an image may have"),
    "size of zero": ({"size": [0, 0], "counts": [0]}, "whole pixels"),
    "size of texts": ({"size": ["24", "32"], "counts": [PIXELS]}, "whole pixels"),
    "two sizes": ([rle(box_mask(1)), rle(np.ones((9, 12), bool))], "differ in size"),
}


def in_child(function):
    """Calls a function in a process that may take 2 GB more, and returns its result; a crash fails the test."""

    def run(pipe):
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: PTH123, SIM115
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, used + 2**31))
        pipe.send(function())

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(theirs,))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        pytest.fail(f"the process ended with {process.exitcode}")


def refusal(read, *arguments):
    try:
        read(*arguments)
    except S4ecaError as error:
        return str(error)
    return None


def errors_of(root):
    return {
        item.code: (item.names, item.text)
        for item in audit(root, workers=1).findings
        if item.severity is Severity.ERROR
    }


def test_geometry_is_refused_when_it_is_read_and_found_by_the_audit(tmp_path):
    """In one process for all, which a segmentation fault or 23 GB would end."""
    for name, (segmentation, _) in GEOMETRY.items():

        def refer(_, instances, segmentation=segmentation):
            instances["annotations"][4]["segmentation"] = segmentation

        def lines(split, rows, segmentation=segmentation):
            if split == "val":
                rows[0]["segmentation"] = segmentation

        write_rrsis_d(tmp_path / name / "refer", train=2, val=3, test=1, edit=refer)
        write_jsonl(tmp_path / name / "jsonl", train=1, val=2, test=1, edit=lines)

    def everything():
        found = {}
        for name in GEOMETRY:
            root = tmp_path / name
            refused = refusal(read_refer, root / "refer", "val"), refusal(read_jsonl, root / "jsonl", "val")
            found[name] = *refused, errors_of(root / "refer"), errors_of(root / "jsonl")
        return found

    for name, (refer, lines, refer_errors, line_errors) in in_child(everything).items():
        words = GEOMETRY[name][1]
        for id, message, errors in (("113", refer, refer_errors), ("202", lines, line_errors)):
            assert message is not None, name
            assert re.search(f"reference {id} .*({words})", message), (name, message)
            assert set(errors) == {"damaged-mask"}, (name, errors)
            assert errors["damaged-mask"][0] == (id,)
            assert re.search(words, errors["damaged-mask"][1]), (name, errors)


def test_polygons_that_are_cut_off_at_the_border(tmp_path):
    """As tiles have them: twenty pixels beyond the image is no defect, and what lies inside counts."""

    def lines(split, rows):
        rows[0]["segmentation"] = [[-20, -20, 12, -20, 12, 44, -20, 44]]

    root = write_jsonl(tmp_path, edit=lines)
    mask = read_jsonl(root, "val")[0].mask.decode()
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[:, :12] = True
    assert np.array_equal(mask, expected)
    assert errors_of(root) == {}


def test_a_mask_of_another_shape_than_the_stated_image(tmp_path):
    """Transposed, it would be stretched over the image; a row more or less is resized, with a warning."""
    for name, shape in {"transposed": (WIDTH, HEIGHT), "higher": (HEIGHT + 1, WIDTH)}.items():

        def edit(_, instances, shape=shape):
            instances["annotations"][4]["segmentation"] = rle(np.ones(shape, bool))

        write_rrsis_d(tmp_path / name, edit=edit)
    with pytest.raises(S4ecaError, match=r"reference 113 .*it is 32x24 and its image 24x32"):
        read_refer(tmp_path / "transposed", "val")
    assert errors_of(tmp_path / "transposed")["damaged-mask"][0] == ("113",)
    assert len(read_refer(tmp_path / "higher", "val")) == 2
    assert errors_of(tmp_path / "higher") == {}


def test_polygons_without_a_size_take_that_of_the_image_file(tmp_path):
    def edit(far):
        def change(_, instances):
            for image in instances["images"]:
                del image["height"], image["width"]
            instances["annotations"][4]["segmentation"] = [[4, 4, 20 + far, 4, 20 + far, 15, 4, 15]]

        return change

    references = read_refer(write_rrsis_d(tmp_path / "near", edit=edit(0)), "val")
    assert references[0].mask.decode().shape == (HEIGHT, WIDTH)
    assert references[0].mask.decode().sum() == 16 * 11
    write_rrsis_d(tmp_path / "far", edit=edit(900))
    with pytest.raises(S4ecaError, match=r"reference 113 .*reach from 4, 4 to 920, 15"):
        read_refer(tmp_path / "far", "val")


def test_polygons_without_a_size_are_painted_by_the_audit_too(tmp_path):
    def edit(_, instances):
        for image in instances["images"]:
            del image["height"], image["width"]
        instances["annotations"][4]["segmentation"] = [[4, 4, 20, 4, 20, 15, 4, 15]]

    assert errors_of(write_rrsis_d(tmp_path, edit=edit)) == {}


def test_masks_turned_against_their_image_are_refused_before_a_run(tmp_path):
    """In 24x32 images: a quarter turn cannot be resized, half the size can."""

    def turn(split, rows):
        if split == "train":
            rows[0]["segmentation"] = rle(box_mask(1).T)

    write_jsonl(tmp_path / "lines", edit=turn)
    write_refsegrs(tmp_path / "files")
    path = tmp_path / "files/masks/41.tif"
    Image.fromarray(box_mask(41).T.copy()).save(path)
    for module, root in ((JsonlDataModule, tmp_path / "lines"), (RefSegRSDataModule, tmp_path / "files")):
        with pytest.raises(S4ecaError, match=r"mask of reference (201|41) .*32x24 .*image .*24x32"):
            module(root=root, num_workers=0).setup("fit")
        assert set(errors_of(root)) == {"unusable-mask"}
    Image.fromarray(box_mask(41)[::2, ::2].copy()).save(path)
    RefSegRSDataModule(root=tmp_path / "files", num_workers=0).setup("fit")
    assert errors_of(tmp_path / "files") == {}


@pytest.mark.parametrize(
    ("file", "stated", "refused"),
    [
        *(("train", "Test", True), ("train", "validation", True), ("val", " test ", True), ("test", "trainval", True)),
        *(("train", "Train", False), ("val", "validation", False), ("test", "testA", False), ("val", "mine", False)),
    ],
)
def test_splits_in_other_words(tmp_path, file, stated, refused):
    def edit(split, rows):
        if split == file:
            rows[0]["split"] = stated

    write_jsonl(tmp_path, edit=edit)
    message = refusal(read_jsonl, tmp_path, file)
    assert (message is not None and f"belongs to the {stated} split" in message) is refused
    assert set(errors_of(tmp_path)) == ({"other-split"} if refused else set())


def test_refs_whose_splits_are_called_otherwise_say_so(tmp_path):
    def edit(refs, _):
        for ref in refs:
            ref["split"] = ref["split"].title()

    write_rrsis_d(tmp_path, edit=edit)
    assert re.search("'Test', 'Train', 'Val'.*split_names={val: NAME}", refusal(read_refer, tmp_path, "val"))
    assert len(read_refer(tmp_path, "val", split_names={"val": "Val"})) == 2


@pytest.mark.parametrize("key", ["ref_id", "ann_id", "image_id"])
def test_numbers_of_thousands_of_digits_are_no_ids(tmp_path, key):
    """Python refuses to write them: beyond 4,300 digits `str` raises."""
    write_rrsis_d(tmp_path, edit=lambda refs, _: refs[4].update({key: 10**5000}))
    assert "Entry 4 " in refusal(read_refer, tmp_path, "val")
    assert errors_of(tmp_path)["bad-entry"][0] == ("entry 4",)


def test_half_of_a_character_in_a_line(tmp_path):
    """JSON's escapes can leave it, and neither a tokenizer nor a table of results takes it."""
    write_jsonl(tmp_path)
    path = next(tmp_path.rglob("*_val.jsonl"))
    path.write_text(path.read_text().replace("The ship", r"The \ud83d ship", 1))
    assert re.search(r"Line 1 .*\\ud83d", refusal(read_jsonl, tmp_path, "val"))
    assert errors_of(tmp_path)["bad-entry"][0] == ("line 1",)


def test_files_without_an_entry_are_errors_of_the_audit(tmp_path):
    write_jsonl(tmp_path / "lines", name="{split}.jsonl")
    (tmp_path / "lines/train.jsonl").write_text("\n")
    write_refsegrs(tmp_path / "phrases")
    (tmp_path / "phrases/output_phrase_train.txt").write_text("")
    write_rrsis_d(tmp_path / "refs", train=0, val=0, test=0)
    for name, read in (("lines", read_jsonl), ("phrases", read_refsegrs), ("refs", read_refer)):
        assert "is empty" in refusal(read, tmp_path / name, "train")
        assert "empty-split" in errors_of(tmp_path / name)


def test_a_file_that_is_a_link_to_itself(tmp_path):
    write_jsonl(tmp_path, name="{split}.jsonl")
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "train.jsonl").symlink_to("train.jsonl")
    assert re.search("train.jsonl cannot be read .*links", refusal(read_jsonl, tmp_path, "train"))


def test_damaged_geometry_that_no_reference_means(tmp_path):
    def orphan(_, instances):
        instances["annotations"].append({**instances["annotations"][0], "id": 900, "segmentation": [[math.nan] * 6]})

    root = write_rrsis_d(tmp_path, edit=orphan)
    assert len(read_refer(root, "val")) == 2
    assert errors_of(root) == {}


def of(items, id, key="id"):
    return next(item for item in items if item[key] == id)


def refer(change):
    """A REFER dataset that `change(refs, instances)` has changed; its reader reads the test split, 119 and 122."""
    return lambda root: (write_rrsis_d(root, edit=change), read_refer, "test")


def jsonl(**fields):
    """An interchange file with the first line of `val` changed; its references are 205 and 206."""

    def edit(split, rows):
        if split == "val":
            rows[0].update(fields)

    return lambda root: (write_jsonl(root, edit=edit), read_jsonl, "val")


def file_changed(write, read, split, path, content):
    def build(root):
        write(root)
        if content is None:
            (root / path).unlink()
        else:
            (root / path).write_bytes(content)
        return root, read, split

    return build


def another_row(part, id, **changes):
    """Adds a row under the id of another one."""
    return refer(lambda _, instances: instances[part].append({**of(instances[part], id), **changes}))


def repeated_line(split, rows):
    if split == "val":
        rows[0]["id"] = rows[1]["id"] = "same"


def changed_ref(**fields):
    return refer(lambda refs, _: of(refs, 122, "ref_id").update(fields))


OTHER = [rle(box_mask(3))]
# a fixture, the audit's code, the names it gives, and words of the reader's refusal
DEFECTS = {
    # case 07
    "two masks for an annotation": (
        another_row("annotations", 119, segmentation=OTHER),
        *("repeated-annotation-id", ("119",), "two different rows of annotations under the id 119"),
    ),
    "two images for an annotation": (
        another_row("annotations", 101, image_id=104),
        *("repeated-annotation-id", ("101",), "two different rows of annotations under the id 101"),
    ),
    "two classes for an annotation": (
        another_row("annotations", 101, categories_id=18),
        *("repeated-annotation-id", ("101",), "two different rows of annotations under the id 101"),
    ),
    "two files for an image": (
        another_row("images", 122, file_name="00119.jpg"),
        *("repeated-annotation-id", ("122",), "two different rows of images under the id 122"),
    ),
    "two sizes for an image": (
        another_row("images", 122, height=25),
        *("repeated-annotation-id", ("122",), "two different rows of images under the id 122"),
    ),
    "two names for a class": (
        another_row("categories", 13, name="boat"),
        *("repeated-annotation-id", ("13",), "two different rows of categories under the id 13"),
    ),
    "an annotation of another image": (
        changed_ref(ann_id=119),
        *("other-image", ("122",), "Reference 122 .* image 122 .*annotation 119 belongs to image 119"),
    ),
    # case 25
    "one of two of another image": (
        changed_ref(ann_id=[122, 119]),
        *("other-image", ("122",), "Reference 122 .* image 122 .*annotation 119 belongs to image 119"),
    ),
    "false as a text": (changed_ref(no_target="false"), "bad-entry", ("entry 7",), "Entry 7 .*no_target is 'false'"),
    "true as a text": (changed_ref(no_target="True"), "bad-entry", ("entry 7",), "Entry 7 .*no_target is 'True'"),
    "a mark that is a number": (changed_ref(no_target=2), "bad-entry", ("entry 7",), "no_target is 2 where"),
    "a mark that is a list": (changed_ref(no_target=[]), "bad-entry", ("entry 7",), r"no_target is \[\] where"),
    "false in a line": (jsonl(no_target="false"), "bad-entry", ("line 1",), "Line 1 .*no_target is 'false'"),
    "no annotation where one is promised": (
        changed_ref(ann_id=[-1], no_target=False),
        *("missing-annotation", ("122",), "Reference 122 .*no_target: false"),
    ),
    "null for an annotation": (
        changed_ref(ann_id=None),
        *("missing-annotation", ("122",), "Reference 122 .*annotation None of image 122"),
    ),
    # what points to nothing
    "an annotation that does not exist": (
        changed_ref(ann_id=[122, 900]),
        *("missing-annotation", ("122",), "Reference 122 .*annotation 900 of image 122"),
    ),
    "an id that is a text": (
        changed_ref(ann_id="122"),
        *("missing-annotation", ("122",), "Reference 122 .*annotation '122' of image 122"),
    ),
    "an image that does not exist": (
        changed_ref(image_id=900),
        *("missing-image-entry", ("122",), "Reference 122 .*of image 900"),
    ),
    "an annotation without a segmentation": (
        refer(lambda _, instances: of(instances["annotations"], 122).update(segmentation=[])),
        *("missing-annotation", ("122",), "Annotation 122 .*no segmentation"),
    ),
    "a line without a segmentation": (
        jsonl(segmentation=None),
        *("missing-annotation", ("205",), "Line 1 .*no segmentation"),
    ),
    # ids
    "a reference twice": (
        refer(lambda refs, _: refs.append(dict(refs[-1]))),
        *("repeated-id", ("122 (test) = 122 (test)",), r"1 ids more than once \(122\)"),
    ),
    "a sentence's id that is another reference's": (
        refer(lambda refs, _: refs[-1].update(ref_id="119_0") or refs[-2].update(sentences=refs[-2]["sentences"] * 2)),
        *("repeated-id", ("119_0 (test) = 119_0 (test)",), r"1 ids more than once \(119_0\)"),
    ),
    "a line's id twice": (
        lambda root: (write_jsonl(root, edit=repeated_line), read_jsonl, "val"),
        *("repeated-id", ("same (val) = same (val)",), r"1 ids more than once \(same\)"),
    ),
    "an id of an entry that is none": (changed_ref(ref_id=None), "bad-entry", ("entry 7",), "Entry 7 .*None for an id"),
    "true for an id": (changed_ref(ann_id=True), "bad-entry", ("entry 7",), "Entry 7 .*True for an id"),
    "a row without an id": (
        refer(lambda _, instances: instances["annotations"][0].pop("id")),
        *("bad-entry", ("a row of annotations without an id",), "row of annotations has no id"),
    ),
    "an image without a file": (
        refer(lambda _, instances: instances["images"].append({"id": 900})),
        *("bad-entry", ("900 of images",), "900 of images .*no file_name"),
    ),
    "an image without extent": (
        refer(lambda _, instances: instances["images"].append({"id": 900, "file_name": "x", "height": 0, "width": 5})),
        *("bad-entry", ("900 of images",), r"900 of images .*\[0, 5\]"),
    ),
    "a line of a size in texts": (jsonl(height="24"), "bad-entry", ("line 1",), "Line 1 .*height '24'"),
    "a line of a huge size": (jsonl(height=10**9, width=10**9), "bad-entry", ("line 1",), "Line 1 .*pixels that an"),
    "an entry that lacks a field": (
        refer(lambda refs, _: refs[-1].pop("split")),
        *("bad-entry", ("entry 7",), "Entry 7 .*split"),
    ),
    # the others, one for each
    "a file that cannot be read": (
        file_changed(write_rrsis_d, read_refer, "test", "rrsisd/instances.json", b"{"),
        *("unreadable-file", ("instances.json",), "cannot be read as COCO"),
    ),
    "lists without an end": (
        file_changed(write_rrsis_d, read_refer, "test", "rrsisd/instances.json", b'{"images": ' + b"[" * 100_000),
        *("unreadable-file", ("instances.json",), "cannot be read as COCO"),
    ),
    "a line without an end": (
        file_changed(write_jsonl, read_jsonl, "val", "datainfo/rrsisd_val.jsonl", b"[" * 100_000),
        *("bad-entry", ("line 1",), "Line 1 .*no JSON"),
    ),
    "no annotations at all": (
        file_changed(write_rrsis_d, read_refer, "test", "rrsisd/instances.json", None),
        *("no-instances", ("refs(unc).p",), "instances.json .*not found"),
    ),
    "a line of another split": (jsonl(split="test"), "other-split", ("205",), "Line 1 .*test split"),
    "an image that is missing": (
        file_changed(write_rrsis_d, read_refer, "test", "images/rrsisd/JPEGImages/00122.jpg", None),
        *("missing-image", ("122",), "00122.jpg of reference 122"),
    ),
    "a mask that is missing": (
        file_changed(write_refsegrs, read_refsegrs, "test", "masks/47.tif", None),
        *("missing-mask", ("47",), "47.tif of reference 47"),
    ),
    "a mask that cannot be painted": (
        refer(lambda _, instances: of(instances["annotations"], 122).update(segmentation=[[4, 4, 9, 9]])),
        *("damaged-mask", ("122",), "mask of reference 122"),
    ),
    "no words": (jsonl(sent=" "), "empty-expression", ("205",), r"expression is empty \(205\)"),
    "a mask where nothing is meant": (
        changed_ref(no_target=True),
        *("no-target-with-mask", ("122",), "Reference 122 .*no_target and its mask .*not empty"),
    ),
    "a mask where a line means nothing": (
        jsonl(no_target=1),
        *("no-target-with-mask", ("205",), "Line 1 .*no_target and its mask is not empty"),
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_what_the_audit_calls_an_error_the_reader_refuses(tmp_path, name):
    build, code, names, words = DEFECTS[name]
    root, read, split = build(tmp_path)
    found = errors_of(root)
    assert code in found, found
    assert found[code][0] == names
    with pytest.raises(S4ecaError, match=f"(?s){words}"):
        read(root, split)


# what is in pixel files: looked at before a run starts, and when a sample is made
PIXELS_WRONG = {
    "unusable-image": ("images/47.tif", np.full((HEIGHT, WIDTH, 3), 4000, np.uint16), "47.tif .*uint16"),
    "unusable-mask": (
        "masks/47.tif",
        np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH),
        "47.tif .*where two",
    ),
    "empty-split": ("masks/47.tif", np.zeros((HEIGHT, WIDTH), np.uint8), "nothing to find: 1 of 1 "),
}


@pytest.mark.parametrize("code", PIXELS_WRONG)
def test_what_pixel_files_hold_is_refused_before_a_run(tmp_path, code):
    path, values, words = PIXELS_WRONG[code]
    root = write_refsegrs(tmp_path, test=1)
    tifffile.imwrite(root / path, values)
    assert code in errors_of(root)
    with pytest.raises(S4ecaError, match=words):
        RefSegRSDataModule(root=root, batch_size=1, image_size=32).setup("test")


def test_every_error_of_the_audit_has_a_fixture():
    """So that the two cannot drift apart; an image is opened when its sample is made, and refused then."""
    assert {code for _, code, *_ in DEFECTS.values()} | {"damaged-image", *PIXELS_WRONG} == set(ERRORS)


def test_a_damaged_image_is_refused_when_it_is_opened(tmp_path):
    root = write_rrsis_d(tmp_path)
    (root / "images/rrsisd/JPEGImages/00122.jpg").write_bytes(b"none")
    assert set(errors_of(root)) == {"damaged-image"}
    with pytest.raises(S4ecaError, match="image of reference 122"):
        ReferenceDataset(read_refer(root, "test"), 32)[1]


def test_lines_are_counted_as_an_editor_does(tmp_path):
    """Blank lines count, in the reader as in the audit, wherever the defect is found."""
    path = write_jsonl(tmp_path) / "datainfo/rrsisd_val.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for name, change in {"no segmentation": {"segmentation": None}, "no_target is 'x'": {"no_target": "x"}}.items():
        lines = [json.dumps(rows[0]), json.dumps(rows[1] | change)]
        path.write_bytes(b"\xef\xbb\xbf\r\n\n" + "\r\n \r".join(lines).encode())
        with pytest.raises(S4ecaError, match=rf"Line 5 of .*rrsisd_val\.jsonl.* {name}"):
            read_jsonl(tmp_path, "val")
    assert errors_of(tmp_path)["bad-entry"][0] == ("line 5",)


def warnings_of(root):
    return {item.code: item.names for item in audit(root, workers=1).findings if item.severity is Severity.WARNING}


def test_what_is_superfluous_changes_no_truth(tmp_path):
    """Case 25, the mild part, and rows that are repeated as they are: read as without it, a warning in the audit."""

    def mild(refs, instances):
        for row in instances["annotations"], instances["images"], instances["categories"]:
            row.append(dict(row[0]))
        instances["images"][-1]["license"] = 3
        of(refs, 101, "ref_id")["sentences"] = []
        of(refs, 104, "ref_id")["ann_id"] = [104, -1]
        of(refs, 107, "ref_id")["ann_id"] = [107, 107]
        of(refs, 110, "ref_id")["category_id"] = []
        of(refs, 122, "ref_id").update(no_target=0)

    plain, root = write_rrsis_d(tmp_path / "plain"), write_rrsis_d(tmp_path / "mild", edit=mild)
    expected = {item.id: item for item in read_refer(plain, "train")}
    references = read_refer(root, "train")
    assert [item.id for item in references] == ["104", "107", "110"]
    for item in references:
        assert np.array_equal(item.mask.decode(), expected[item.id].mask.decode())
        assert (item.category, item.no_target) == (expected[item.id].category, False)
    assert len(read_refer(root, "test")) == 2
    assert errors_of(root) == {}
    found = warnings_of(root)
    assert found["no-sentence"] == ("101",)
    assert found["repeated-in-list"] == ("104", "107")
    assert sorted(found["repeated-row"]) == ["101", "101", "13"]


@pytest.mark.parametrize("ann_id", [-1, [-1], [], [-1, -1]])
def test_lists_that_name_nothing(tmp_path, ann_id):
    root = write_rrsis_d(tmp_path, edit=lambda refs, _: refs[-1].update(ann_id=ann_id))
    last = read_refer(root, "test")[1]
    assert last.no_target
    assert not last.mask.decode().any()
    assert errors_of(root) == {}


def test_sentence_ids_that_stand_for_two_sentences_are_a_warning(tmp_path):
    def edit(refs, _):
        refs[-1]["sentences"][0]["sent_id"] = 119

    root = write_rrsis_d(tmp_path, edit=edit)
    assert warnings_of(root)["repeated-sentence-id"] == ("119",)
    assert len(read_refer(root, "test")) == 2


def test_an_image_id_of_several_images_is_a_warning(tmp_path):
    """The lines hold their own truth, but the second reference is called by the order of the lines."""
    root = write_jsonl(tmp_path, edit=lambda _, rows: [row.update(image_id=1) for row in rows])
    assert warnings_of(root)["image-id-of-several"][0].startswith("1: 00201.jpg, 00202.jpg")
    assert [item.id for item in read_jsonl(root, "val")] == ["1", "1_1"]


CASES = SAMPLES / "public_cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="the public cases are not in ../shared/data")
@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("07/refer", "under the id 1:"),
        ("07/images", "under the id 1:"),
        ("07/score", "under the id 13:"),
        ("07/foreign", "annotation 6 belongs to image 6"),
        ("25/other_image", "annotation 7 belongs to image 7"),
        ("25/false_text", "no_target is 'false'"),
        ("25/all", "no_target is 'false'"),
        ("25/mild", None),
        ("14/refer/good", None),
        ("14/refer/outside", None),
        *(
            (f"14/{kind}/{name}", "reference")
            for kind in ("refer", "jsonl")
            for name in ("flat", "box4", "five", "nan")
        ),
        *((f"14/{kind}/{name}", "reference") for kind in ("refer", "jsonl") for name in ("points", "strings")),
        *((f"14/{kind}/empty_part", "empty") for kind in ("refer", "jsonl")),
        ("14/jsonl/good", None),
        ("14/jsonl/outside", None),
    ],
)
def test_the_public_cases(folder, words):
    read = read_jsonl if "jsonl" in folder else read_refer
    message, errors = in_child(lambda: (refusal(read, CASES / folder, "train"), errors_of(CASES / folder)))
    assert bool(errors) == (words is not None)
    assert message is None if words is None else re.search(words, message)
