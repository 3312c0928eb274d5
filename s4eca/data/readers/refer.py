"""Reader for every dataset in REFER's layout: RRSIS-D, RRSIS-HR, RIS-LAD, VDD-RIS, NWPU-Refer, RefCOCO and its kin."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.defects import DefectError, raise_first
from s4eca.data.masks import EmptyMask, StoredMask
from s4eca.data.readers.checks import (
    SPLITS,
    check_by_split,
    check_count,
    check_expressions,
    check_files,
    check_split,
    check_unique,
    dataset_name,
    published_counts,
)
from s4eca.data.readers.collection import paused_collection
from s4eca.data.readers.refer_checks import check_mask, entry_defects, mask_size
from s4eca.data.readers.refer_files import Instances, ReferEntry, read_instances, read_refer_entries
from s4eca.data.readers.refer_layout import Layout, find_layout
from s4eca.data.references import MaskSource, Reference
from s4eca.errors import S4ecaError

# Published split sizes by dataset; RRSIS-D's stand in rrsis_d.py.
REFER_COUNTS: dict[str, dict[str, int]] = {"rrsishr": {"train": 2_118, "val": 268, "test": 264}}


def read_refer(
    root: str | Path,
    split: str,
    strict_counts: bool = False,
    dataset: str | None = None,
    split_by: str | None = None,
    refs: str | None = None,
    instances: str | None = None,
    images: str | None = None,
    split_names: Mapping[str, str] | None = None,
    expected: Mapping[str, int] | None = None,
    need_files: bool = True,
) -> list[Reference]:
    """Reads one split in the order of the refs file.

    Every sentence is a reference. Its id is the `ref_id`, followed by `_0`, `_1`, … where an entry has several
    sentences. Its mask is the union of the entry's annotations; an entry that is marked `no_target`, or whose `ann_id`
    is -1 or an empty list, names nothing and has an empty mask of the image's size. The kind of its expressions is the
    `kind` of its annotations, where they agree on one.

    Args:
        root: the folder with `DATASET/` and `images/`, or one above `refer/data`.
        split: `train`, `val` or `test`.
        strict_counts: a split size other than the published one is an error instead of a warning.
        dataset: name of the folders, such as `rrsishr`; None where there is one only.
        split_by: the name in brackets of `refs(unc).p`; None where there is one only.
        refs: name of the refs file where it is another, such as `refs_llama(uow).p`.
        instances: name of the annotation file where it is neither `instances.json` nor `new_instances.json`.
        images: image folder below the root, where it is in none of the usual places.
        split_names: what the splits are called in the refs file where that differs, such as `{"test": "testA"}`; two
            splits may be called the same.
        expected: published split sizes; those known for the dataset where it is None.
        need_files: False to read the annotations without their images.

    Raises:
        S4ecaError: files are missing, damaged or hold something else than the layout promises.
    """
    check_split(split)
    layout = find_layout(root, dataset, split_by, refs, instances, images, need_files)
    expected = published_counts(dataset or layout.refs.parent.name, REFER_COUNTS, expected, strict_counts)
    references = read_layout(layout, (split,), split_names)[split]
    check_references(references, split, layout, f"the REFER dataset in {root}", expected, strict_counts, need_files)
    return references


def read_layout(
    layout: Layout, splits: Sequence[str] = SPLITS, split_names: Mapping[str, str] | None = None
) -> dict[str, list[Reference]]:
    """Parses the annotation files once and returns the references of several splits; no image is looked for.

    Raises:
        S4ecaError: a file is damaged, an entry of any split has no or an unclear truth, or one without a target has a
            mask.
    """
    check_by_split("split_names", split_names, str)
    wanted: dict[str, list[str]] = {}
    for split in splits:
        wanted.setdefault((split_names or {}).get(split, split), []).append(split)
    references: dict[str, list[Reference]] = {split: [] for split in splits}
    with paused_collection():
        instances = read_instances(layout.instances, layout.images)
        entries = read_refer_entries(layout.refs)
        for entry in entries:
            raise_first(entry_defects(entry, instances, layout.refs))
            for split in wanted.get(entry.split, ()):
                references[split] += _references(entry, split, layout, instances)
    return references


def _references(entry: ReferEntry, split: str, layout: Layout, instances: Instances) -> list[Reference]:
    """Returns one reference for each sentence of an entry that `entry_defects` finds nothing wrong with."""
    if not entry.sentences:
        return []
    image = instances.images[entry.image_id]
    annotations = [instances.annotations[id] for id in entry.annotations if id in instances.annotations]
    spans = tuple(number for annotation in annotations if not annotation.empty for number in annotation.span)
    ids = {annotation.category_id for annotation in annotations} - {None} or {entry.category_id}
    category = instances.categories.get(ids.pop()) if len(ids) == 1 else None
    kinds = {annotation.kind for annotation in annotations}
    kind = kinds.pop() if len(kinds) == 1 else None
    size = mask_size(image, annotations, entry.name)
    if size != image.size:
        check_mask(annotations, size, entry.name, instances)
    references = []
    for position, sentence in enumerate(entry.sentences):
        id = entry.name if len(entry.sentences) == 1 else f"{entry.name}_{position}"
        mask: MaskSource = EmptyMask(image.path, size, id)
        if spans:
            mask = StoredMask(instances.file, spans, size, id)
            if entry.no_target and mask.covers():
                raise DefectError(
                    f"Reference {id} of {layout.refs} is marked no_target and its mask in {layout.instances} is not"
                    " empty: mend one of the two.",
                    "no-target-with-mask",
                    id,
                )
        references.append(Reference(id, image.path, sentence, split, category, mask, entry.no_target, kind))
    return references


def check_references(
    references: list[Reference],
    split: str,
    layout: Layout,
    title: str,
    expected: Mapping[str, int],
    strict_counts: bool = False,
    need_files: bool = True,
) -> None:
    """Checks ids, expressions, image files and the size of a split.

    Raises:
        S4ecaError: an id occurs twice, an expression is empty, images are missing, the split is empty, or has another
            size than `expected` and `strict_counts` is set.
    """
    if not references:
        names = sorted({repr(entry.split) for entry in read_refer_entries(layout.refs)})
        raise S4ecaError(
            f"The {split} split of {title} is empty, and {layout.refs} has the splits {', '.join(names) or '(none)'}:"
            f" give the whole dataset, or say what the split is called with data.split_names={{{split}: NAME}}."
        )
    check_unique(references, layout.refs)
    check_expressions(references, layout.refs)
    if need_files:
        check_files(references, [reference.image for reference in references])
    check_count(title, split, len(references), expected, strict_counts)


class ReferDataModule(ReferringDataModule):
    """Any dataset in REFER's layout; the annotation files are parsed once for the three splits.

    Its name, under which results stand, is that of the folder of its refs file, as far as that is below the root.

    Args:
        dataset: see `read_refer`; likewise `split_by`, `refs`, `instances`, `images` and `split_names`.
        split_by: see `read_refer`.
        refs: see `read_refer`.
        instances: see `read_refer`.
        images: see `read_refer`.
        split_names: see `read_refer`.
        expected: see `read_refer`.
        options: as for `ReferringDataModule`.
    """

    name = "refer"
    title = "the REFER dataset"

    def __init__(
        self,
        *,
        dataset: str | None = None,
        split_by: str | None = None,
        refs: str | None = None,
        instances: str | None = None,
        images: str | None = None,
        split_names: Mapping[str, str] | None = None,
        expected: Mapping[str, int] | None = None,
        max_tokens: int = 22,
        **options: Any,
    ) -> None:
        super().__init__(max_tokens=max_tokens, **options)
        check_by_split("split_names", split_names, str)
        check_by_split("expected", expected, int)
        self.places = (dataset, split_by, refs, instances, images)
        self.name = dataset_name(dataset or self._folder_name() or self.name)
        self.split_names = split_names
        self.expected = expected
        self._ahead: dict[str, list[Reference]] = {}

    def _folder_name(self) -> str | None:
        """Returns the name of the folder with the refs file, None where that is the root or not (yet) there."""
        try:
            folder = find_layout(self.root, *self.places, need_files=False).refs.parent
        except S4ecaError:
            return None
        return None if folder == self.root else folder.name

    def layout(self) -> Layout:
        """Returns where the files are."""
        return find_layout(self.root, *self.places)

    def counts(self, layout: Layout) -> Mapping[str, int]:
        """Returns the split sizes to compare with."""
        dataset = self.places[0] or layout.refs.parent.name
        return published_counts(dataset, REFER_COUNTS, self.expected, self.strict_counts)

    def read(self, split: str) -> list[Reference]:
        """Returns the references of a split, see `read_refer`."""
        layout = self.layout()
        expected = self.counts(layout)
        if split not in self._ahead:
            self._ahead = read_layout(layout, SPLITS, self.split_names)
        references = self._ahead.pop(split)
        check_references(references, split, layout, f"{self.title} in {self.root}", expected, self.strict_counts)
        return references
