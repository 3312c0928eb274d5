"""Checks of what one run asks for."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from s4eca.cache import readable
from s4eca.doctor.facts import Facts, Run
from s4eca.doctor.findings import Finding

GIB = 2**30


def check_run(facts: Facts, run: Run) -> list[Finding]:
    """Returns what is to be said about a run on a machine."""
    checks = (_weights, _accelerator, _precision, _compiler, _extras, _workers, _checkpoints)
    here = [finding for check in checks for finding in check(facts, run)]
    found = [*_paths(run), *_image_size(run), *here]
    # what a build stumbles over first may be among them
    if run.refusal is not None and not any(one.level == "fail" and one.about in run.refusal for one in found):
        found.append(Finding("fail", "config", run.refusal))
    return found


def multiple_of(vision: Mapping[str, Any]) -> int | None:
    """Returns what the image size of a vision tower must be a multiple of, None where its name does not say."""
    options = vision.get("options") or {}
    if str(vision.get("_target_", "")).endswith("ConvNextTower"):
        return int(options.get("output_stride", 32))
    named = re.search(r"patch(\d+)", str(vision.get("name", "")))
    patch = options.get("patch_size", named and named[1])
    return int(patch) if patch else None


def _paths(run: Run) -> Iterator[Finding]:
    for item, there in run.there.items():
        key, _, path = item.partition("=")
        if there:
            yield Finding("ok", key, f"{item} is there.")
        elif key.startswith("data."):
            yield Finding("fail", key, f"{path} does not exist; give the dataset's folder with {key}=PATH.")
        else:
            yield Finding("fail", key, f"{item} does not exist; give a path that does.")


def _weights(facts: Facts, run: Run) -> Iterator[Finding]:
    folder = run.config.get("weights_folder")
    for item in run.wanted:
        group = item.setting.partition(".")[0]
        if item.kept is not None:
            level, says = ("ok", "has") if item.kept else ("fail", "lacks")
            remedy = "" if item.kept else "; add it with s4eca weights fetch where the hub can be reached"
            yield Finding(
                level,  # type: ignore[arg-type]
                "weights",
                f"weights_folder={folder} {says} {item.repository} ({item.part}) for {item.setting}{remedy}.",
            )
        elif item.part in facts.hub.cached.get(item.repository, ()):
            yield Finding("ok", "weights", f"{item.repository} ({item.part}) is in the hub's cache here.")
        elif facts.hub.offline or facts.hub.reachable is False:
            own = "tokenizer" if item.part == "tokenizer" else "weights"
            why = "HF_HUB_OFFLINE is set" if facts.hub.offline else "the hub cannot be reached"
            yield Finding(
                "fail",
                "weights",
                f"{item.setting} ({item.part}) is not in the hub's cache and {why}; fetch it elsewhere "
                f"with s4eca weights fetch and set weights_folder=FOLDER, or give {group}.{own}=PATH.",
            )
        else:
            yield Finding("ok", "weights", f"{item.repository} ({item.part}) will be fetched from the hub.")


def _accelerator(facts: Facts, run: Run) -> Iterator[Finding]:
    trainer, gpus = run.config["trainer"], len(facts.torch.gpus)
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    if accelerator in ("gpu", "cuda") and not gpus:
        yield Finding(
            "fail", "accelerator", f"trainer.accelerator={accelerator} and PyTorch sees no GPU; see gpu above, or set "
            "trainer.accelerator=cpu."
        )  # fmt: skip
    elif accelerator == "auto" and not gpus:
        yield Finding("ok", "accelerator", "trainer.accelerator=auto will be the CPU.")
    if gpus and accelerator != "cpu":
        most = max(devices) + 1 if isinstance(devices, list) and devices else devices
        if str(most).isdecimal() and int(most) > gpus:
            yield Finding(
                "fail",
                "devices",
                f"trainer.devices={devices} and PyTorch sees {gpus} GPUs; set trainer.devices={gpus}.",
            )


def _precision(facts: Facts, run: Run) -> Iterator[Finding]:
    trainer, segmenter = run.config["trainer"], run.config["model"].get("segmenter", {})
    precision = str(trainer.get("precision", "32-true"))
    on_gpu = bool(facts.torch.gpus) and trainer.get("accelerator", "auto") != "cpu"
    if segmenter.get("tower_dtype") == "bf16" and precision != "bf16-mixed":
        yield Finding(
            "fail",
            "precision",
            f"model.segmenter.tower_dtype=bf16 and trainer.precision={precision}; set trainer.precision=bf16-mixed.",
        )
    if precision.startswith("bf16") and on_gpu:
        for gpu in facts.torch.gpus:
            if gpu.capability < (8, 0):
                yield Finding(
                    "warning",
                    "precision",
                    f"trainer.precision={precision} is emulated on {gpu.name} and slow; set "
                    f"{_with_precision('16-mixed', run)}.",
                )
    if precision.startswith("bf16") and not on_gpu and not facts.cpu_bf16:
        yield Finding(
            "warning",
            "precision",
            f"trainer.precision={precision} is slow on this CPU, which has no bf16 instructions; set "
            f"{_with_precision('32-true', run)}.",
        )
    if precision in ("16", "16-mixed") and not on_gpu:
        fitting = ("bf16-mixed", "32-true") if facts.cpu_bf16 else ("32-true",)
        best = " or ".join(_with_precision(other, run) for other in fitting)
        yield Finding(
            "warning",
            "precision",
            f"trainer.precision={precision} does not exist on a CPU, and Lightning takes bf16-mixed instead; set "
            f"{best}.",
        )


def _with_precision(precision: str, run: Run) -> str:
    """Returns the settings of another precision than bf16-mixed, with what goes along with it."""
    model = run.config["model"]
    settings = [f"trainer.precision={precision}"]
    if model.get("segmenter", {}).get("tower_dtype") == "bf16":
        settings.append("model.segmenter.tower_dtype=fp32")
    if precision.startswith("16") and model.get("fused_optimizer"):
        settings.append("model.fused_optimizer=false")
    return " ".join(settings)


def _compiler(facts: Facts, run: Run) -> Iterator[Finding]:
    if run.config["model"].get("segmenter", {}).get("compile") == "block" and not facts.compilers:
        yield Finding(
            "fail",
            "compile",
            "model.segmenter.compile=block needs a C++ compiler and there is none; install g++, or set "
            "model.segmenter.compile=none.",
        )


def _extras(facts: Facts, run: Run) -> Iterator[Finding]:
    for group, option, package, extra in (
        ("logger", "wandb", "wandb", "wandb"),
        ("hydra/launcher", "submitit", "hydra-submitit-launcher", "slurm"),
        ("decoupler", "spacy", "spacy", "spacy"),
    ):
        choice = run.choices.get(group, "")
        if choice.startswith(option) and package not in facts.packages:
            yield Finding(
                "fail", package, f"{group}={choice} needs {package}, which is missing; pip install 's4eca[{extra}]'."
            )
    logger = (run.config.get("logger") or {}).get("wandb")
    if logger and "wandb" in facts.packages:
        if logger.get("offline") or facts.wandb.mode in ("offline", "disabled"):
            yield Finding("ok", "wandb", "W&B runs offline; send the run later with wandb sync.")
        elif not facts.wandb.logged_in:
            yield Finding(
                "fail", "wandb", "logger=wandb and nobody is logged in; run wandb login, or set WANDB_MODE=offline."
            )
        else:
            yield Finding("ok", "wandb", "W&B has a login here.")


def _image_size(run: Run) -> Iterator[Finding]:
    vision = run.config.get("vision") or {}
    size, multiple = vision.get("image_size"), multiple_of(vision)
    if isinstance(size, int) and multiple and size % multiple:
        below = max(size // multiple, 1) * multiple
        yield Finding(
            "fail",
            "image_size",
            f"image_size={size} is no multiple of {multiple}, which vision.name={vision['name']} needs; set "
            f"image_size={below} or image_size={below + multiple}.",
        )


def _workers(facts: Facts, run: Run) -> Iterator[Finding]:
    data = run.config.get("data") or {}
    workers, batch, size = data.get("num_workers", 0), data.get("batch_size", 1), data.get("image_size", 0)
    if workers > facts.cpus:
        yield Finding(
            "warning",
            "workers",
            f"data.num_workers={workers} are more than the {facts.cpus} cores here; set data.num_workers={facts.cpus} "
            "or less.",
        )
    # three bytes of a pixel and one of the mask, two batches ahead for every worker, which is PyTorch's default
    needed = 4 * size * size * batch * 2 * workers
    if facts.shm is not None and needed > facts.shm.free:
        yield Finding(
            "fail",
            "/dev/shm",
            f"{workers} loader workers keep up to {readable(needed)} of batches in /dev/shm, which has "
            f"{readable(facts.shm.free)} free; give the container a larger --shm-size, or lower data.num_workers.",
        )


def _checkpoints(facts: Facts, run: Run) -> Iterator[Finding]:
    disk = facts.disks.get(run.checkpoints)
    if disk is None:
        return
    if not disk.writable:
        yield Finding(
            "fail", "run folder", f"{run.checkpoints} cannot be written; set hydra.run.dir to a folder that can."
        )
    # weights and AdamW's two moments in fp32, of the best and the last checkpoint and one that is being written
    full = str(run.config.get("tuning", {}).get("_target_", "")).endswith("FullFineTuning")
    needed, what = (8 * GIB, "full fine-tuning's") if full else (GIB, "a method's and a decoder's")
    if disk.writable and disk.free < needed:
        yield Finding(
            "warning",
            "disk",
            f"{readable(disk.free)} are free in {run.checkpoints}, and as a rule of thumb {what} checkpoints want "
            f"{readable(needed)}; make room, or set hydra.run.dir.",
        )
