"""Looking at the machine; everything is read and nothing is changed."""

import netrc
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import threading
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from s4eca.doctor.facts import Disk, Facts, Gpu, Hub, Torch, Wandb
from s4eca.folders import visible

# values of these are printed
ENVIRONMENT = (
    *("HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "TRANSFORMERS_OFFLINE", "WANDB_MODE"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES"),
    *("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "MASTER_PORT"),
    *("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES", "SLURM_PROCID", "SLURM_CPUS_PER_TASK"),
)
# of these it is only said that they are set: they name machines
UNSPOKEN = ("MASTER_ADDR",)
YES = ("1", "on", "yes", "true")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
BF16_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))
TOKENIZERS = {"tokenizer.json", "vocab.txt", "vocab.json"}


def gather(folders: Iterable[str] = ("outputs", "data"), timeout: float = 3.0) -> Facts:
    """Returns the facts of this machine.

    Args:
        folders: whose disks are looked at.
        timeout: seconds to wait for the hub.
    """
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {name: "set" for name in UNSPOKEN if name in os.environ}
    requires, requires_python = requirements()
    return Facts(
        python=platform.python_version(),
        platform=platform.platform(),
        packages=packages(),
        requires=tuple(requires),
        requires_python=requires_python,
        torchvision_requires=_requires("torchvision"),
        cpus=_cpus(),
        cpu_bf16=cpu_has_bf16(),
        memory=_memory(),
        shm=disk("/dev/shm") if Path("/dev/shm").is_dir() else None,
        driver=_driver(),
        torch=_torch(),
        environment=environment,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        disks={folder: disk(folder) for folder in folders},
        hub=_hub(timeout),
        wandb=_wandb(os.environ, Path.home()),
        compilers=tuple(name for name in ("g++", "c++", "clang++") if shutil.which(name)),
    )


def packages() -> dict[str, str]:
    """Returns installed versions by normalised name."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return found


def requirements() -> tuple[list[str], str]:
    """Returns what s4eca requires, and of Python: as its checkout says, or as it was installed."""
    beside = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if beside.is_file():
        project = tomllib.loads(beside.read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        more = [f'{item} ; extra == "{name}"' for name, items in extras.items() for item in items]
        return [*project["dependencies"], *more], project["requires-python"]
    about = metadata.metadata("s4eca")
    return list(_requires("s4eca")), about["Requires-Python"] or ">=3.11"


def disk(folder: str) -> Disk:
    """Returns the disk that a folder is on, or would be."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    return Disk(usage.free, usage.total, place.is_dir() and os.access(place, os.W_OK))


def cached_parts(environment: Mapping[str, str], home: Path) -> dict[str, tuple[str, ...]]:
    """Returns what the hub's cache has of each model, by the repository's name."""
    base = Path(environment.get("HF_HOME") or home / ".cache" / "huggingface")
    folder = Path(environment.get("HF_HUB_CACHE") or base / "hub")
    found: dict[str, set[str]] = {}
    for snapshot in visible(folder, "models--*/snapshots/*"):
        name = snapshot.parts[-3].removeprefix("models--").replace("--", "/", 1)
        # a link of an interrupted download leads nowhere
        files = [path for path in visible(snapshot, "**/*") if path.is_file()]
        found.setdefault(name, set()).update(parts_of([path.relative_to(snapshot).as_posix() for path in files]))
    return {name: tuple(sorted(parts)) for name, parts in found.items() if parts}


def parts_of(files: Sequence[str]) -> set[str]:
    """Returns the files of weights, `weights` where there are any, and `tokenizer` where that is among the files."""
    parts = {file for file in files if Path(file).suffix in WEIGHTS}
    if parts:
        parts.add("weights")
    if TOKENIZERS & {Path(file).name for file in files}:
        parts.add("tokenizer")
    return parts


def _requires(name: str) -> tuple[str, ...]:
    try:
        return tuple(metadata.requires(name) or ())
    except metadata.PackageNotFoundError:
        return ()


def cpu_has_bf16(cpuinfo: str | None = None) -> bool:
    """Returns whether the CPU has instructions for bf16; without them it is slower than fp32, with AVX2 alone by far.

    Args:
        cpuinfo: content of /proc/cpuinfo; None reads it. x86 lists flags there, ARM features.
    """
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)", _read("/proc/cpuinfo") if cpuinfo is None else cpuinfo, re.M)
    return not BF16_FLAGS.isdisjoint(lines[0].split()) if lines else False


def _cpus() -> int:
    allowed = len(os.sched_getaffinity(0))
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdecimal():
        allowed = min(allowed, max(int(quota[0]) // int(quota[1]), 1))
    return allowed


def _memory() -> tuple[int, int]:
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read("/proc/meminfo"), flags=re.M))
    total, free = (1024 * int(sizes.get(name, 0)) for name in ("MemTotal", "MemAvailable"))
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdecimal() and used.isdecimal():
        total, free = min(total, int(limit)), min(free, int(limit) - int(used))
    return total, free


def _driver() -> tuple[str, ...]:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip().replace(", ", ", driver ") for line in done.stdout.splitlines() if line.strip())


def _torch() -> Torch:
    try:
        import torch

        gpus = []
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            about = torch.cuda.get_device_properties(index)
            gpus.append(Gpu(about.name, about.total_memory, (about.major, about.minor)))
        return Torch(None, torch.version.cuda, tuple(gpus), torch.get_num_threads())
    except Exception as error:  # a broken installation raises whatever it likes
        return Torch(error=" ".join(str(error).split()) or type(error).__name__)


def _hub(timeout: float) -> Hub:
    offline = any(os.environ.get(name, "").lower() in YES for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    cached = cached_parts(os.environ, Path.home())
    if offline:
        return Hub(True, None, cached)
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    reached: list[bool] = []

    def knock() -> None:
        try:
            port = address.port or (80 if address.scheme == "http" else 443)
            socket.create_connection((address.hostname or "", port), timeout).close()
            reached.append(True)
        except (OSError, ValueError):
            reached.append(False)

    # looking a name up has no timeout of its own
    waiting = threading.Thread(target=knock, daemon=True)
    waiting.start()
    waiting.join(timeout)
    return Hub(False, bool(reached and reached[0]), cached)


def _wandb(environment: Mapping[str, str], home: Path) -> Wandb:
    """Looks whether there is a login, not at the login."""
    mode = environment.get("WANDB_MODE", "online")
    host = urlsplit(environment.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        hosts: Any = netrc.netrc(environment.get("NETRC") or home / ".netrc").hosts
    except (OSError, netrc.NetrcParseError):
        hosts = {}
    return Wandb("WANDB_API_KEY" in environment or host in hosts, mode)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
