"""The benchmarks are scripts: what they share lies beside them, where only a script finds it."""

import importlib.util
import sys
from pathlib import Path

# not by the import path: benchmarks/dgl_rsis.py would hide the tests' own package of that name
_spec = importlib.util.spec_from_file_location("turns", Path(__file__).parents[2] / "benchmarks" / "turns.py")
sys.modules["turns"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["turns"])
