"""Training: LightningModules and the callbacks and loggers that a run is made of."""

from s4eca.lit.csv_log import CSVLog
from s4eca.lit.ema import EMA
from s4eca.lit.pictures import ValidationPictures
from s4eca.lit.progress import ProgressBar
from s4eca.lit.random_state import RandomState
from s4eca.lit.referring import ReferringModule
from s4eca.lit.reporting import ParameterReport, Throughput

__all__ = [
    "EMA",
    "CSVLog",
    "ParameterReport",
    "ProgressBar",
    "RandomState",
    "ReferringModule",
    "Throughput",
    "ValidationPictures",
]
