"""The benchmarks are scripts: what they share lies beside them, where only a script finds it."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(script: str, name: str) -> ModuleType:
    # not by the import path: benchmarks/dgl_rsis.py would hide the tests' own package of that name
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{script}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


for common in ("turns", "presets"):
    load(common, common)


@pytest.fixture(scope="module")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """Loads a script by its name."""
    loaded = []

    def load_script(name: str) -> ModuleType:
        loaded.append(f"{name}_benchmark")
        return load(name, loaded[-1])

    yield load_script
    for name in loaded:
        del sys.modules[name]
