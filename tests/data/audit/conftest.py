from pathlib import Path

import numpy as np
import pytest

from layouts import box_mask, rle, write_rrsis_d
from s4eca.data.audit import Finding, audit


@pytest.fixture(scope="session")
def clean():
    """Writes RRSIS-D's layout without its peculiarities: 4 train, 2 val and 2 test samples, ids 101, 104, … 122."""

    def write(root: Path, edit=None) -> Path:
        def mend(refs, instances):
            for annotation in instances["annotations"]:
                mask = box_mask(annotation["id"])
                rows, columns = np.nonzero(mask)
                left, top = int(columns.min()), int(rows.min())
                annotation["bbox"] = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
                annotation["area"] = int(mask.sum())
                annotation["category_id"] = annotation.pop("categories_id")
                annotation["segmentation"] = rle(mask)
            if edit is not None:
                edit(refs, instances)

        return write_rrsis_d(root, edit=mend)

    return write


@pytest.fixture
def found():
    """Audits and returns the findings by code; a code that occurs twice fails the test."""

    def run(root: Path, **options) -> dict[str, Finding]:
        findings = audit(root, workers=1, **options).findings
        by_code = {finding.code: finding for finding in findings}
        assert len(by_code) == len(findings), [finding.code for finding in findings]
        return by_code

    return run
