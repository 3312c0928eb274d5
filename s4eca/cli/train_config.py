"""`conf/train.yaml` with overrides, outside of Hydra's own entry."""

from collections.abc import Sequence
from typing import Any

from s4eca.errors import S4ecaError


def compose_train(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Composes the config that `s4eca train` would run with.

    Returns:
        The resolved config, and which option of every config group was chosen.

    Raises:
        S4ecaError: an override that does not fit the config, or a setting that a part of it does not take.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from s4eca.overrides import composing_reason

    wrong = [item for item in overrides if item.startswith("-")]
    if wrong:
        raise S4ecaError(f"There is no option {wrong[0]}: give KEY=VALUE as to s4eca train.")
    try:
        config, choices = compose_quietly(overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise S4ecaError(f"The config cannot be composed, {composing_reason(error)}: see conf/train.yaml.") from error
    from s4eca.cli.check_config import check_config

    check_config(config, choices)
    return config, choices


def compose_quietly(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Composes `train.yaml` and leaves the global state of Hydra as it was.

    Returns:
        The resolved config, and which option of every config group was chosen.

    Raises:
        S4ecaError: an override that Hydra cannot read.
        HydraException: an override that does not fit the config.
        OmegaConfBaseException: a value that cannot be resolved.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    from s4eca.cli.config import conf_dir, plain
    from s4eca.overrides import check_overrides

    check_overrides(overrides)
    hydra = HydraConfig.instance()
    before = hydra.cfg
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            config = compose("train", overrides=list(overrides), return_hydra_config=True)
        hydra.set_config(config)  # the run's name is made of the choices
        choices = OmegaConf.to_container(config.hydra.runtime.choices)
        assert isinstance(choices, dict)
        with open_dict(config):
            del config["hydra"]
        return plain(config), {str(group): str(option) for group, option in choices.items()}
    finally:
        hydra.cfg = before
