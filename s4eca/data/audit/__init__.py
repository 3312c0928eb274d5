"""Auditing a dataset: everything in its files that could make a training fail or a score wrong.

An audit reads more patiently than the readers of `s4eca.data` do. They stop at the first thing that is wrong, so that
no run starts on it; an audit goes on and reports all of it, by the same checks. Every finding has one of three
severities:

error: the readers refuse it, since a training or an evaluation would fail or its score be wrong.
    `unreadable-file`, `bad-entry`, `repeated-annotation-id` (rows that differ share an id), `missing-annotation`,
    `missing-image-entry`, `other-image` (the annotation belongs to another image), `other-split` (file and line
    disagree), `missing-image`, `missing-mask`, `damaged-image` (refused when the image is opened), `damaged-mask`,
    `unusable-image` and `unusable-mask` (whole, of a kind that is not read), `empty-split` (nearly all of its targets,
    not meant to be), `empty-expression`, `repeated-id` (in one split), `no-target-with-mask`, `no-instances` beside
    images.
warning: a run goes through, but its numbers may not compare with others, or other people's code will trip.
    `split-size` (not the published one), `unknown-split`, `unknown-category`, `other-category` (refs and instances
    differ), `misspelt-key`, `truncated`, `id-in-two-splits`, `leaked-sample` (the same image with the same expression
    in two splits: published datasets have some, and a reader sees one split), `leaked-image`, `repeated-sample`,
    `repeated-row` (a row as it is), `repeated-in-list` (an annotation in an entry's list, or -1 beside one),
    `no-sentence`, `repeated-sentence-id`, `image-id-of-several`, `mask-size`, `stated-size`, `empty-mask` (not meant to
    be), `tiny-mask`, `box-convention` (not COCO's), `box-off-mask`, `box-without-mask`, `bad-box`, `area`, `bad-area`.
note: worth knowing.
    `annotations-alone`, `no-instances`, `no-masks`, `no-pixels` (what was left out and why), `no-target`,
    `seen-in-train` (val and test expressions that occur word for word in train), `image-copies`, `rle-in-list`,
    `box-convention` (COCO's), `unknown-word`, `unused-image`, `unused-image-entry`, `unused-annotation`.

The published RRSIS-D carries warnings itself: its boxes are corners, its areas some 200 times too large, and one test
target is empty.
"""

from s4eca.data.audit.findings import Finding, Severity
from s4eca.data.audit.pixels import Progress
from s4eca.data.audit.records import Record
from s4eca.data.audit.report import Audit, audit
from s4eca.data.audit.survey import Survey, survey

__all__ = ["Audit", "Finding", "Progress", "Record", "Severity", "Survey", "audit", "survey"]
