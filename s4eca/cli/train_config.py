"""`conf/train.yaml` with overrides, outside of Hydra's own entry."""

from collections.abc import Sequence
from typing import Any

from s4eca.errors import S4ecaError


def compose_train(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Composes the config that `s4eca train` would run with.

    Returns:
        The resolved config, and which option of every config group was chosen.

    Raises:
        S4ecaError: an override that does not fit the config.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    from s4eca.cli.config import conf_dir, plain

    wrong = [item for item in overrides if item.startswith("-")]
    if wrong:
        raise S4ecaError(f"There is no option {wrong[0]}: give KEY=VALUE as to s4eca train.")
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            config = compose("train", overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)  # the run's name is made of the choices
        choices = OmegaConf.to_container(config.hydra.runtime.choices)
        assert isinstance(choices, dict)
        with open_dict(config):
            del config["hydra"]
        return plain(config), {str(group): str(option) for group, option in choices.items()}
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise S4ecaError(f"The config cannot be composed, {reason}: see conf/train.yaml.") from error
