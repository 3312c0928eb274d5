"""Checks of the machine: cores, memory, disks, GPUs, network, scheduler."""

from collections.abc import Iterator

from s4eca.cache import readable
from s4eca.doctor.facts import Facts
from s4eca.doctor.findings import Finding

GIB = 2**30
DISTRIBUTED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def check_machine(facts: Facts) -> list[Finding]:
    """Returns what is to be said about the machine."""
    checks = (_torch, _gpus, _memory, _shm, _disks, _open_files, _threads, _slurm, _distributed, _hub)
    return [finding for check in checks for finding in check(facts)]


def _torch(facts: Facts) -> Iterator[Finding]:
    if facts.torch.error is not None:
        yield Finding(
            "fail", "torch", f"torch cannot be imported ({facts.torch.error}); install torch and torchvision anew."
        )


def _gpus(facts: Facts) -> Iterator[Finding]:
    torch, hidden = facts.torch, facts.environment.get("CUDA_VISIBLE_DEVICES")
    if torch.gpus:
        names = ", ".join(f"{gpu.name} ({readable(gpu.memory)})" for gpu in torch.gpus)
        yield Finding("ok", "gpu", f"PyTorch sees {names}.")
        for gpu in torch.gpus:
            if gpu.capability < (8, 0):
                yield Finding(
                    "warning",
                    "bf16",
                    f"{gpu.name} has no bf16 units (compute capability {gpu.capability[0]}.{gpu.capability[1]}); train"
                    " with trainer.precision=16-mixed or 32-true.",
                )
    elif facts.driver and hidden is not None and hidden.strip() in ("", "-1"):
        yield Finding("warning", "gpu", "CUDA_VISIBLE_DEVICES hides all GPUs; unset it, or name those to use.")
    elif facts.driver and torch.error is None and torch.cuda is None:
        yield Finding(
            "warning",
            "gpu",
            "there is a GPU and this torch is built for CPUs; install PyPI's ordinary torch and torchvision.",
        )
    elif facts.driver and torch.error is None:
        yield Finding(
            "warning",
            "gpu",
            f"there is a GPU and torch for CUDA {torch.cuda} cannot use it ({facts.driver[0]}); update the driver, or "
            "install a torch for an older CUDA.",
        )
    else:
        yield Finding("ok", "gpu", "there is none; the demo and tests run on the CPU, Swin-B and BERT-base want a GPU.")
    if not torch.gpus:
        says = "has bf16 instructions" if facts.cpu_bf16 else "has no bf16 instructions; train in fp32 here"
        yield Finding("ok", "bf16", f"the CPU {says}.")


def _memory(facts: Facts) -> Iterator[Finding]:
    free = facts.memory[1]
    if free < 4 * GIB:
        yield Finding(
            "warning",
            "memory",
            f"{readable(free)} of memory are free, and PyTorch with a few loader workers takes more than 4 GiB; end "
            "other programs, or lower data.num_workers.",
        )


def _shm(facts: Facts) -> Iterator[Finding]:
    if facts.shm is not None and facts.shm.total < GIB:
        yield Finding(
            "warning",
            "/dev/shm",
            f"/dev/shm has {readable(facts.shm.total)}, through which loader workers hand over batches; start the "
            "container with --shm-size=8g or --ipc=host, or set data.num_workers=0.",
        )


def _disks(facts: Facts) -> Iterator[Finding]:
    for folder, disk in facts.disks.items():
        if not disk.writable:
            if folder.startswith("outputs"):
                yield Finding(
                    "fail", "disk", f"{folder} cannot be written; run in another folder, or set hydra.run.dir."
                )
        elif disk.free < GIB // 2:
            yield Finding(
                "fail", "disk", f"{readable(disk.free)} are free in {folder}; make room, or choose another disk."
            )
        elif disk.free < 5 * GIB:
            yield Finding(
                "warning", "disk", f"only {readable(disk.free)} are free in {folder}; a run's checkpoints may not fit."
            )


def _open_files(facts: Facts) -> Iterator[Finding]:
    if facts.open_files < 4096:
        yield Finding(
            "warning",
            "open files",
            f"a process may open {facts.open_files} files, and loader workers pass each tensor through one; run "
            "ulimit -n 65536 before.",
        )


def _threads(facts: Facts) -> Iterator[Finding]:
    for name in THREADS:
        value = facts.environment.get(name, "")
        if value.isdecimal() and int(value) > facts.cpus:
            yield Finding(
                "warning",
                "threads",
                f"{name}={value} is more than the {facts.cpus} cores here; set it to that or less.",
            )
    if facts.environment.get("TOKENIZERS_PARALLELISM", "").lower() in ("true", "1", "yes", "on"):
        yield Finding(
            "warning",
            "tokenizers",
            "TOKENIZERS_PARALLELISM is on, and threads do not survive the fork of loader workers; set it to false.",
        )


def _slurm(facts: Facts) -> Iterator[Finding]:
    environment = facts.environment
    if "SLURM_JOB_ID" not in environment:
        return
    tasks = environment.get("SLURM_NTASKS", "1")
    if tasks.isdecimal() and int(tasks) > 1 and "SLURM_NTASKS_PER_NODE" not in environment:
        yield Finding(
            "fail",
            "slurm",
            f"the job asks for --ntasks={tasks}, which Lightning refuses; ask for --ntasks-per-node, one for each GPU.",
        )
    elif tasks.isdecimal() and int(tasks) > 1 and "SLURM_PROCID" not in environment:
        yield Finding(
            "warning", "slurm", f"the job has {tasks} tasks and this is none of them; start the training with srun."
        )
    else:
        yield Finding("ok", "slurm", f"this is job {environment['SLURM_JOB_ID']}, {tasks} tasks.")


def _distributed(facts: Facts) -> Iterator[Finding]:
    there = [name for name in DISTRIBUTED if name in facts.environment]
    missing = [name for name in DISTRIBUTED if name not in there]
    if there and missing:
        yield Finding(
            "warning",
            "distributed",
            f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} set without {', '.join(missing)}, left from "
            "another launcher; unset them, or start with torchrun.",
        )
    elif there:
        yield Finding(
            "ok",
            "distributed",
            f"this is process {facts.environment['RANK']} of {facts.environment['WORLD_SIZE']}.",
        )


def _hub(facts: Facts) -> Iterator[Finding]:
    cached = f"{len(facts.hub.cached)} models are in its cache here"
    if facts.hub.offline:
        yield Finding("ok", "hub", f"HF_HUB_OFFLINE is set, the hub is not asked; {cached}.")
    elif facts.hub.reachable is False:
        yield Finding(
            "warning",
            "hub",
            f"the hub cannot be reached, {cached}; set HF_HUB_OFFLINE=1 so that nothing waits for it, and bring weights"
            " with s4eca weights fetch.",
        )
    elif facts.hub.reachable:
        yield Finding("ok", "hub", f"the hub can be reached; {cached}.")
