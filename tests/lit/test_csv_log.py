import csv

from s4eca.lit import CSVLog


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_new_names_become_columns_and_old_rows_stay(tmp_path):
    log = CSVLog(tmp_path)
    log.log_metrics({"train/loss": 1.5}, step=0)
    log.log_metrics({"val/mIoU": 0.25, "train/loss": 1.0}, step=1)
    assert rows(tmp_path) == [
        {"step": "0", "epoch": "", "train/loss": "1.5", "val/mIoU": ""},
        {"step": "1", "epoch": "", "train/loss": "1.0", "val/mIoU": "0.25"},
    ]


def test_a_resumed_run_appends(tmp_path):
    CSVLog(tmp_path).log_metrics({"a": 1.0}, step=0)
    CSVLog(tmp_path).log_metrics({"a": 2.0}, step=1)
    CSVLog(tmp_path).log_metrics({"b": 3.0}, step=2)
    assert [(row["step"], row["a"], row["b"]) for row in rows(tmp_path)] == [
        ("0", "1.0", ""), ("1", "2.0", ""), ("2", "", "3.0"),
    ]  # fmt: skip


def test_a_row_that_was_cut_short_does_not_spoil_the_next(tmp_path):
    CSVLog(tmp_path).log_metrics({"a": 1.0, "b": 2.0}, step=0)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("1,,5")
    CSVLog(tmp_path).log_metrics({"a": 7.0, "c": 8.0}, step=2)
    assert [(row["step"], row["a"], row["b"], row["c"]) for row in rows(tmp_path)] == [
        ("0", "1.0", "2.0", ""), ("1", "5", "", ""), ("2", "7.0", "", "8.0"),
    ]  # fmt: skip
