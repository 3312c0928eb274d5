import csv
import io
import re
from collections import Counter

import pytest

from s4eca.data.readers.refsegrs import REFSEGRS_COUNTS
from s4eca.data.readers.rrsis_d import RRSIS_D_COUNTS
from s4eca.errors import S4ecaError
from s4eca.evaluation.protocols import PROTOCOLS, TENTHS
from s4eca.evaluation.tables.build import PROTOCOLS as DESCRIBED
from s4eca.evaluation.tables.published import (
    SCORES,
    SPLIT_SIZES,
    load_costs,
    load_published,
    parse_costs,
    parse_results,
)

HEADER = (
    "dataset,split,method,Pr@0.5,Pr@0.6,Pr@0.7,Pr@0.8,Pr@0.9,oIoU,mIoU,"
    "reported_in,protocol,input_size,selection,samples,training,remark"
)
GOOD = {
    "dataset": "rrsis_d",
    "split": "test",
    "method": "Some",
    "Pr@0.5": "60.5",
    "Pr@0.6": "50",
    "Pr@0.7": "40.25",
    "Pr@0.8": "30",
    "Pr@0.9": "20",
    "oIoU": "70",
    "mIoU": "55.5",
    "reported_in": "a paper",
    "protocol": "lavt",
    "input_size": "480",
    "selection": "val",
    "samples": "3481",
    "training": "fine-tuned",
    "remark": "",
}


def text(*rows: dict[str, str]) -> str:
    content = io.StringIO()
    writer = csv.DictWriter(content, HEADER.split(","), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue()


def test_every_result_is_there():
    # counted by hand, FIANet's and the anonymous re-runs and GeoGround+SAM included
    assert Counter((row.dataset, row.split) for row in load_published()) == {
        ("rrsis_d", "val"): 7,
        ("rrsis_d", "test"): 22,
        ("refsegrs", "val"): 5,
        ("refsegrs", "test"): 15,
        ("risbench", "test"): 6,
        ("ris_lad", "test"): 7,
    }
    assert len(load_costs()) == 9


# typed a second time, independently of the file: Pr@.5 .6 .7 .8 .9, oIoU, mIoU
@pytest.mark.parametrize(
    ("dataset", "split", "method", "training", "expected"),
    [
        ("rrsis_d", "test", "RMSIN", "fine-tuned", (74.26, 67.25, 55.93, 42.55, 24.53, 77.79, 64.20)),
        ("rrsis_d", "test", "RMSIN", "third-party re-run", (None, None, None, None, None, None, 62.27)),
        ("rrsis_d", "test", "SBANet", "unknown", (75.91, None, 57.05, None, 25.38, 79.22, 65.52)),
        ("rrsis_d", "test", "RSRefSeg-2", "third-party re-run", (80.03, 75.64, 65.18, 50.59, 31.08, 79.66, 69.06)),
        ("rrsis_d", "test", "GeoGround+SAM", "unknown", (67.50, None, None, None, None, None, 60.50)),
        ("rrsis_d", "val", "LAVT", "fine-tuned", (69.54, 63.51, 53.16, 43.97, 24.25, 77.59, 61.46)),
        ("rrsis_d", "val", "GeoPixel-RES", "unknown", (80.00, None, None, None, None, 81.77, 67.99)),
        ("refsegrs", "val", "LGCE", "fine-tuned", (90.72, 86.31, 71.93, 32.95, 10.21, 83.56, 72.51)),
        ("refsegrs", "test", "FIANet", "fine-tuned", (84.09, 77.05, 61.86, 33.41, 7.10, 78.32, 68.67)),
        ("refsegrs", "test", "RSRefSeg-2", "third-party re-run", (88.11, 82.94, 73.97, 60.81, 34.4, 81.21, 77.36)),
        ("refsegrs", "test", "SegEarth-R2", "unknown", (None, None, None, None, None, None, 74.80)),
        ("risbench", "test", "CroBIM-ConvNeXt", "unknown", (77.55, None, None, None, 34.07, 73.04, 69.33)),
        ("risbench", "test", "LAVT", "unknown", (69.40, None, None, None, None, 74.15, 61.93)),
        ("ris_lad", "test", "SAARN", "unknown", (None, None, None, None, None, 49.60, 41.67)),
    ],
)
def test_values_are_those_reported(dataset, split, method, training, expected):
    (row,) = [
        row for row in load_published(dataset, split) if row.method == method and row.training == training
    ]  # one row per key
    assert tuple(row.scores[name] for name in SCORES) == expected


def test_sums_of_columns():
    # added up from the reported values
    rows = load_published("rrsis_d", "val")
    assert sum(row.scores["oIoU"] for row in rows) == pytest.approx(547.80)
    assert sum(row.scores["mIoU"] for row in rows) == pytest.approx(448.27)
    assert sum(row.scores["mIoU"] for row in load_published("refsegrs", "val")) == pytest.approx(358.81)


def test_what_is_known_of_the_protocols():
    rows = {(row.dataset, row.split, row.method, row.training): row for row in load_published()}

    def known(*key):
        row = rows[key]
        return row.protocol, row.input_size, row.selection, row.samples

    assert known("rrsis_d", "test", "RMSIN", "fine-tuned") == ("lavt", 480, "val", 3481)
    assert known("rrsis_d", "test", "FIANet", "fine-tuned") == ("lavt", 480, "test", 3481)
    assert known("rrsis_d", "test", "LAVT", "fine-tuned") == ("lavt", 480, "unknown", 3481)
    assert known("rrsis_d", "test", "CroBIM", "unknown") == ("unknown", None, "unknown", None)
    assert known("rrsis_d", "test", "RS2-SAM2", "fine-tuned") == ("unknown", 1024, "val", None)
    assert known("rrsis_d", "test", "RSRefSeg-2", "third-party re-run") == ("unknown", 1024, "test", None)
    assert known("ris_lad", "test", "RMSIN", "unknown") == ("unknown", None, "unknown", None)
    dicor = rows["rrsis_d", "test", "DiCoR", "fine-tuned"]
    assert dicor.samples == 3480
    assert dicor.protocol not in PROTOCOLS
    assert "00413" in dicor.remark
    rsrefseg = rows["rrsis_d", "test", "RSRefSeg-1", "fine-tuned"]
    assert rsrefseg.protocol not in {*PROTOCOLS, "unknown"}
    assert "original size" in rsrefseg.protocol


def test_no_number_of_the_s4eca_paper_is_there():
    assert not [row for row in load_published() if "s4eca" in row.method.lower()]


@pytest.mark.parametrize("row", load_published(), ids=lambda row: f"{row.dataset}-{row.split}-{row.method}")
def test_rows_are_plausible(row):
    assert row.reported_in
    assert row.protocol
    assert all(0 < value < 100 for value in row.scores.values() if value is not None)
    assert row.scores["mIoU"] is not None
    precision = [row.scores[f"Pr@0.{tenth}"] for tenth in TENTHS if row.scores[f"Pr@0.{tenth}"] is not None]
    assert precision == sorted(precision, reverse=True)
    if row.protocol == "lavt":
        assert row.input_size == 480
        assert row.samples == SPLIT_SIZES[row.dataset, row.split]


def test_costs():
    costs = {cost.method: (cost.parameters, cost.gflops, cost.fps, cost.device) for cost in load_costs()}
    assert costs["LAVT"] == (227.74, 198.82, 28.65, "RTX 4090")
    assert costs["SegEarth-R2"] == (3325.06, 6018.13, 2.41, "RTX 4090")
    with pytest.raises(S4ecaError, match=r"costs\.csv, line 3, field method: A is there twice"):
        parse_costs("method,parameters,gflops,fps,device,reported_in\nA,1,2,3,GPU,x\nA,1,2,3,GPU,y\n", "costs.csv")
    with pytest.raises(S4ecaError, match=r"costs\.csv, line 2, field fps: it is zero"):
        parse_costs("method,parameters,gflops,fps,device,reported_in\nA,1,2,0,GPU,x\n", "costs.csv")


def test_names_agree_with_the_evaluation():
    # these modules repeat them, so that `s4eca table` starts without torch
    assert tuple(DESCRIBED) == tuple(PROTOCOLS)
    assert (*(f"Pr@0.{tenth}" for tenth in TENTHS), "oIoU", "mIoU") == SCORES
    for split in ("val", "test"):
        assert SPLIT_SIZES["rrsis_d", split] == RRSIS_D_COUNTS[split]
        assert SPLIT_SIZES["refsegrs", split] == REFSEGRS_COUNTS[split]


def test_a_good_row_is_read():
    (row,) = parse_results(text({**GOOD, "oIoU": "", "remark": 'a, "b"'}), "mine.csv")
    assert row.scores == {
        "Pr@0.5": 60.5,
        "Pr@0.6": 50.0,
        "Pr@0.7": 40.25,
        "Pr@0.8": 30.0,
        "Pr@0.9": 20.0,
        "oIoU": None,
        "mIoU": 55.5,
    }
    assert (row.input_size, row.samples, row.remark) == (480, 3481, 'a, "b"')


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dataset", "RRSIS-D", "should be a name as in data="),
        ("split", "train", "'train' is none of val, test"),
        ("method", "", "should be a value"),
        ("Pr@0.6", "61", "61.0 is more than Pr@0.5, which is 60.5"),
        ("Pr@0.7", "40,25", "'40,25' should be a number in percent or empty"),
        ("oIoU", "-1", "should be a number in percent or empty"),
        ("oIoU", "nan", "should be a number in percent or empty"),
        ("mIoU", "100.5", "100.5 is more than 100 percent"),
        ("reported_in", "", "should be a value, unknown if there is none"),
        ("protocol", "", "should be a value, unknown if there is none"),
        ("input_size", "480px", "should be a whole number from 1 on or empty"),
        ("selection", "", "'' is none of val, test, unknown"),
        ("samples", "0", "should be a whole number from 1 on or empty"),
        ("training", "trained", "'trained' is none of fine-tuned, third-party re-run, zero-shot, unknown"),
        ("remark", " x", "begins or ends with a space"),
    ],
)
def test_an_impossible_value_is_named_with_line_and_field(field, value, message):
    other = {**GOOD, "method": "Other"}
    with pytest.raises(S4ecaError, match=re.escape(f"mine.csv, line 3, field {field}: ") + ".*" + re.escape(message)):
        parse_results(text(other, {**GOOD, field: value}), "mine.csv")


def test_precision_is_compared_over_gaps():
    with pytest.raises(S4ecaError, match=r"field Pr@0\.9: 60\.6 is more than Pr@0\.5"):
        parse_results(text({**GOOD, "Pr@0.6": "", "Pr@0.7": "", "Pr@0.8": "", "Pr@0.9": "60.6"}), "mine.csv")


def test_a_second_row_for_the_same_result_is_refused():
    parse_results(text(GOOD, {**GOOD, "training": "third-party re-run"}), "mine.csv")
    with pytest.raises(S4ecaError, match=r"line 3, field method: rrsis_d, test, Some, fine-tuned is in line 2 already"):
        parse_results(text(GOOD, {**GOOD, "mIoU": "1"}), "mine.csv")


def test_a_row_without_scores_is_refused():
    with pytest.raises(S4ecaError, match="the row has no score at all"):
        parse_results(text({**GOOD, **dict.fromkeys(SCORES, "")}), "mine.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: the columns must be dataset, split, method"),
        (HEADER.replace("oIoU,mIoU", "mIoU,oIoU") + "\n", "line 1: the columns must be"),
        (HEADER + "\nrrsis_d,test,Some\n", "line 2: 3 fields where the header names 17"),
        (HEADER + '\n"rrsis_d,test\n', "line 2: not comma-separated text"),
    ],
)
def test_a_damaged_file_is_named(content, message):
    with pytest.raises(S4ecaError, match=re.escape(f"mine.csv, {message}")):
        parse_results(content, "mine.csv")


def test_selecting():
    assert {row.dataset for row in load_published("refsegrs")} == {"refsegrs"}
    assert {row.split for row in load_published(split="val")} == {"val"}
    assert load_published("synthetic") == []
