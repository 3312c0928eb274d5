"""Metrics as one CSV file that only ever grows."""

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from s4eca.files import write_text

COLUMNS = ["step", "epoch"]


class CSVLog(Logger):
    """Appends to `metrics.csv`; a resumed run goes on in the same file, and nothing in it is ever lost.

    Lightning's CSVLogger removes the file of an earlier start and rewrites it in place when a new name appears; here
    the file is kept, and rewritten beside itself and moved into place.

    Args:
        save_dir: the run folder.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """The logger's name."""
        return "csv"

    @property
    def version(self) -> str:
        """One run folder has one version."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @property
    @rank_zero_experiment
    def experiment(self) -> "CSVLog":
        """The logger itself."""
        return self

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the run folder holds the resolved config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Appends one row."""
        row: dict[str, Any] = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        if self._columns is None:
            self._columns = self._header()
        new = sorted(row.keys() - set(self._columns))
        if new or not self.path.exists():
            self._columns = [*self._columns, *new]
            self._rewrite()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _header(self) -> list[str]:
        if not self.path.exists():
            return list(COLUMNS)
        if not self.path.read_bytes().endswith(b"\n"):  # a process was killed in the middle of a row
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")
        with self.path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), list(COLUMNS))

    def _rewrite(self) -> None:
        """Writes the file anew with the columns as they are now."""
        rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                # a row that was cut short has None in its missing cells
                rows = [{k: v for k, v in row.items() if k and v is not None} for row in csv.DictReader(file)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns or [])
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
