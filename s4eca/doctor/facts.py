"""What is known about a machine and a run, as plain values, so that checks can be fed with made-up ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """One GPU as PyTorch sees it; `capability` is its compute capability, `memory` is in bytes."""

    name: str
    memory: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Torch:
    """What PyTorch says.

    Attributes:
        error: why it cannot be imported, None where it can.
        cuda: version it was built for, None for a CPU build.
        gpus: those it can use.
        threads: of one operator.
    """

    error: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    threads: int = 1


@dataclass(frozen=True)
class Disk:
    """Free and all bytes of the disk that a folder is on, and whether the folder can be written or made."""

    free: int
    total: int
    writable: bool = True


@dataclass(frozen=True)
class Hub:
    """The hub of models.

    Attributes:
        offline: HF_HUB_OFFLINE is set.
        reachable: None where it was not asked.
        cached: what the local cache has of each repository, see `parts_of`.
    """

    offline: bool = False
    reachable: bool | None = None
    cached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Wandb:
    """W&B: whether this account is logged in, and the mode that the environment asks for."""

    logged_in: bool = False
    mode: str = "online"


@dataclass(frozen=True)
class Facts:
    """A machine.

    Attributes:
        python: version.
        platform: operating system.
        packages: installed versions, by normalised name.
        requires: requirements of s4eca as its metadata has them, those of extras with a marker.
        requires_python: of s4eca.
        torchvision_requires: requirements of the installed torchvision.
        cpus: cores that this process may use.
        cpu_bf16: the CPU multiplies in bf16 by itself (see `cpu_has_bf16`).
        memory: bytes that this process may use, and those that are free now.
        shm: /dev/shm, None where there is none.
        driver: names and driver versions of GPUs as nvidia-smi prints them.
        torch: what PyTorch says.
        environment: variables that matter here and are set.
        open_files: soft limit of open files.
        disks: by folder.
        hub: the hub of models.
        wandb: W&B.
        compilers: C++ compilers on the path.
    """

    python: str
    platform: str
    packages: Mapping[str, str]
    requires: tuple[str, ...]
    requires_python: str
    torchvision_requires: tuple[str, ...] = ()
    cpus: int = 8
    cpu_bf16: bool = False
    memory: tuple[int, int] = (64 * 2**30, 48 * 2**30)
    shm: Disk | None = None
    driver: tuple[str, ...] = ()
    torch: Torch = Torch()
    environment: Mapping[str, str] = field(default_factory=dict)
    open_files: int = 65536
    disks: Mapping[str, Disk] = field(default_factory=dict)
    hub: Hub = Hub()
    wandb: Wandb = Wandb()
    compilers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """Something of the hub that a run asks for.

    Attributes:
        setting: the config setting, for example `text.name=google-bert/bert-base-uncased`.
        repository: of the hub.
        part: `weights`, `tokenizer`, or the path of a single file.
        kept: whether the run's weights folder has it; None where the run names none.
    """

    setting: str
    repository: str
    part: str = "weights"
    kept: bool | None = None


@dataclass(frozen=True)
class Run:
    """What a run asks for.

    Attributes:
        config: resolved.
        choices: option of every config group.
        wanted: what it takes from the hub.
        refusal: why it could not be built, None where it could.
        there: whether each path that the config names exists, by `KEY=PATH`.
        checkpoints: folder that its run folders are made in.
    """

    config: Mapping[str, Any]
    choices: Mapping[str, str] = field(default_factory=dict)
    wanted: tuple[Wanted, ...] = ()
    refusal: str | None = None
    there: Mapping[str, bool] = field(default_factory=dict)
    checkpoints: str = "outputs"
