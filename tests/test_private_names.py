"""Names of other libraries that begin with an underscore and that this package uses: each is there, and all are listed.

A library may rename them in any release, so that what overrides one would silently do nothing. Where a row fails, the
library has changed: mend what uses the name, then the row and the library's range in `pyproject.toml`.
"""

import ast
import importlib
import inspect
import pkgutil
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import s4eca

ROOT = Path(s4eca.__file__).parent
LOOPS = "lightning.pytorch.loops"
LAUNCHERS = "lightning.pytorch.strategies.launchers"
FABRIC_LAUNCHERS = "lightning.fabric.strategies.launchers"
RICH = "lightning.pytorch.callbacks.progress.rich_progress"
LOADER = "torchdata.stateful_dataloader.stateful_dataloader"

# of each library: its range in pyproject.toml and the names as MODULE:NAME or MODULE:CLASS.NAME; an attribute that is
# set when an object is made counts as its class's
NAMES = {
    "lightning": (
        ">=2.6.6,<2.7",
        f"{LOOPS}.training_epoch_loop:_TrainingEpochLoop",
        f"{LOOPS}.training_epoch_loop:_TrainingEpochLoop._should_accumulate",
        f"{LOOPS}.training_epoch_loop:_TrainingEpochLoop._num_ready_batches_reached",
        f"{LOOPS}.training_epoch_loop:_TrainingEpochLoop._should_check_val_fx",
        f"{LOOPS}.fit_loop:_FitLoop._should_accumulate",
        f"{LOOPS}.fit_loop:_FitLoop._data_fetcher",
        f"{LAUNCHERS}:_SubprocessScriptLauncher",
        f"{LAUNCHERS}:_SubprocessScriptLauncher._check_can_spawn_children",
        f"{FABRIC_LAUNCHERS}.subprocess_script:_ChildProcessObserver",
        "lightning.fabric.utilities.distributed:_set_num_threads_if_needed",
        "lightning.pytorch.overrides.distributed:_sync_module_states",
        "lightning.pytorch.strategies:Strategy._launcher",
        "lightning.pytorch.strategies:Strategy._lightning_module",
        "lightning.pytorch:Trainer._checkpoint_connector",
        "lightning.pytorch:LightningModule._trainer",
    ),
    "torch": (
        ">=2.7",
        "torch:_dynamo",
        "torch:_foreach_copy_",
        "torch.nn.modules.batchnorm:_BatchNorm",
        "torch.nn.modules.dropout:_DropoutNd",
        "torch.utils._python_dispatch:TorchDispatchMode",
        "torch.utils._pytree:tree_leaves",
    ),
    "torchdata": (
        ">=0.10,<0.12",
        "torchdata.stateful_dataloader:StatefulDataLoader._iterator",
        f"{LOADER}:_StatefulMultiProcessingDataLoaderIter._SNAPSHOT",
        f"{LOADER}:_StatefulMultiProcessingDataLoaderIter._MAIN_SNAPSHOT",
        f"{LOADER}:_SAMPLER_ITER_STATE",
    ),
    "torchmetrics": (">=1.4", "torchmetrics:Metric._to_sync", "torchmetrics:Metric._is_synced"),
    "timm": (
        ">=1.0.31,<1.1",
        "timm.models.swin_transformer:SwinTransformerBlock._attn",
        "timm.models.swin_transformer_v2:SwinTransformerV2Block._attn",
        "timm.models.vision_transformer:VisionTransformer._pos_embed",
        "timm.models.eva:Eva._pos_embed",
    ),
    "transformers": (">=5,<6", "transformers:PretrainedConfig._attn_implementation"),
    "hydra-core": (">=1.3.8,<1.4", "hydra._internal.utils:get_args_parser"),
    "optuna": (">=5", "optuna.trial:Trial._trial_id", "optuna.trial:FrozenTrial._trial_id"),
}

# private methods that classes of this package override, and the module that calls them
OVERRIDDEN = {
    f"{LOOPS}.training_epoch_loop:_TrainingEpochLoop._broadcast_sigterm_tensor": f"{LOOPS}.training_epoch_loop",
    f"{LAUNCHERS}:_SubprocessScriptLauncher._call_children_scripts": f"{LAUNCHERS}.subprocess_script",
    f"{FABRIC_LAUNCHERS}.subprocess_script:_ChildProcessObserver._terminate_all": (
        f"{FABRIC_LAUNCHERS}.subprocess_script"
    ),
    "lightning.pytorch.strategies:DDPStrategy._configure_launcher": (
        "lightning.pytorch.trainer.connectors.accelerator_connector"
    ),
    f"{RICH}:RichProgressBar._get_train_description": RICH,
}

# what a library reads or writes under such a name without an attribute of that name in a class
SPELT = {
    "_ddp_params_and_buffers_to_ignore": ("torch.nn.parallel.distributed", "lightning.pytorch.overrides.distributed"),
    "_raise_exceptions_for_missing_entries": ("transformers.utils.hub",),
    "_raise_exceptions_for_connection_errors": ("transformers.utils.hub",),
}

# those that documentation names: Hydra's, and `os._exit`
PUBLIC = {"_partial_", "_convert_", "_exit"}

LISTED = [name for _, *names in NAMES.values() for name in names]


def source(thing) -> str:
    return inspect.getsource(importlib.import_module(thing) if isinstance(thing, str) else thing)


def find(name: str) -> bool:
    """Returns whether a name is there."""
    module, _, path = name.partition(":")
    *owners, last = path.split(".")
    thing = importlib.import_module(module)
    for owner in owners:
        thing = getattr(thing, owner)
    classes = [cls for cls in getattr(thing, "__mro__", ()) if cls.__module__.split(".")[0] == module.split(".")[0]]
    return hasattr(thing, last) or any(f"self.{last}" in source(cls) for cls in classes)


@pytest.mark.parametrize("name", [*LISTED, *OVERRIDDEN])
def test_a_private_name_is_there(name):
    assert find(name), f"{name} is gone"


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_is_called(name):
    assert f".{name.rpartition('.')[2]}(" in source(OVERRIDDEN[name]), f"nothing calls {name} any more"


@pytest.mark.parametrize("name", SPELT)
def test_a_spelt_name_is_read(name):
    for module in SPELT[name]:
        assert name in source(module), f"{module} does not know {name} any more"


def test_a_name_that_is_gone_is_seen():
    assert not find(f"{LOOPS}.fit_loop:_FitLoop._never_there")
    assert not find("torchmetrics:Metric._never_there")


def test_the_ranges_are_those_of_the_project():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    extras = [item for items in project["optional-dependencies"].values() for item in items]
    wanted = [Requirement(item) for item in [*project["dependencies"], *extras]]
    for library, (versions, *_) in NAMES.items():
        found = {item.specifier for item in wanted if item.name == library}
        assert found == {Requirement(f"{library}{versions}").specifier}, library


def used() -> set[str]:
    """Names with one underscore that the package's code takes from something that it has not defined itself."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    found = {node.attr for node in nodes if isinstance(node, ast.Attribute)} - own
    found |= {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}
    imported = [
        node for node in nodes if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("s4eca")
    ]
    found |= {name.name for node in imported for name in node.names}
    # all that comes out of a private module
    found |= {f"_{name.name}" for node in imported if "._" in f".{node.module}" for name in node.names}
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def test_no_private_name_is_missing_from_the_list():
    rows = [name.partition(":") for name in LISTED]
    known = {path.rpartition(".")[2] for _, _, path in rows} | {
        f"_{path}" for module, _, path in rows if "._" in module
    }
    found = used()
    assert "_checkpoint_connector" in found, "the search finds what is known to be used"
    assert found - known - PUBLIC - SPELT.keys() == set()


def overrides() -> set[str]:
    """Private methods of other libraries' classes that a class of this package defines anew."""
    for folder in ("lit", "data", "sweep", "evaluation", "profiling"):
        for module in pkgutil.walk_packages([str(ROOT / folder)], f"s4eca.{folder}."):
            importlib.import_module(module.name)
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("s4eca.")]
    classes = {cls for module in modules for cls in vars(module).values() if inspect.isclass(cls)}
    return {
        name
        for cls in classes
        if cls.__module__.startswith("s4eca.")
        for name, value in vars(cls).items()
        if name.startswith("_") and not name.startswith("__") and inspect.isfunction(value)
        for base in cls.__mro__[1:]
        if base.__module__.split(".")[0] in NAMES and name in vars(base)
    }


def test_no_overridden_method_is_missing_from_the_list():
    assert overrides() == {name.rpartition(".")[2] for name in OVERRIDDEN}
