"""Every finding from made-up facts, and the command on the machine that runs the tests."""

import json
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from s4eca.cli.doctor import doctor
from s4eca.doctor.facts import Disk, Facts, Gpu, Hub, Run, Torch, Wandb, Wanted
from s4eca.doctor.gathering import _wandb as look_for_login
from s4eca.doctor.gathering import cached_parts, cpu_has_bf16, disk, packages, requirements
from s4eca.doctor.machine import check_machine
from s4eca.doctor.packages import check_packages
from s4eca.doctor.planning import _by_name, named_paths, plan_run
from s4eca.doctor.private import redacted
from s4eca.doctor.run import check_run, multiple_of

GIB = 2**30
A100 = Gpu("A100", 80 * GIB, (8, 0))
T4 = Gpu("T4", 16 * GIB, (7, 5))
SOUND = Facts(
    python="3.11.7",
    platform="Linux",
    packages={"lightning": "2.6.6", "torch": "2.14.1", "torchvision": "0.29.1", "albumentations": "2.0.8"},
    requires=("lightning>=2.6.6,<3", "torch>=2.7", 'wandb>=0.19 ; extra == "wandb"', 'pytest>=8 ; extra == "dev"'),
    requires_python=">=3.11",
    torchvision_requires=("numpy", "torch==2.14.1"),
    cpus=8,
    shm=Disk(8 * GIB, 8 * GIB),
    torch=Torch(None, "13.0", (A100,), 8),
    disks={"outputs": Disk(100 * GIB, 500 * GIB), "outputs/run": Disk(100 * GIB, 500 * GIB)},
    hub=Hub(False, True, {"google-bert/bert-base-uncased": ("weights",)}),
    compilers=("g++",),
)
CONFIG = {
    "name": "run",
    "vision": {"_target_": "s4eca.towers.SwinTower", "name": "swin_base_patch4_window12_384", "image_size": 480},
    "model": {"segmenter": {"compile": "none", "tower_dtype": "fp32"}},
    "tuning": {"_target_": "s4eca.tuning.S4ECA"},
    "data": {"num_workers": 4, "batch_size": 8, "image_size": 480},
    "trainer": {"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed"},
    "logger": {},
    "weights_folder": None,
}
RUN = Run(CONFIG, {"logger": "csv"}, (), None, {"data.root=/data/rrsis_d": True}, "outputs/run")


def packaged(**versions: str | None) -> Facts:
    there = {**SOUND.packages, **{name.replace("_", "-"): version for name, version in versions.items()}}
    return replace(SOUND, packages={name: version for name, version in there.items() if version})


def changed(run: Run = RUN, **values) -> Run:
    """The run with other values at `a__b=` for `a.b`."""
    config = json.loads(json.dumps(run.config))
    for key, value in values.items():
        *path, last = key.split("__")
        node = config
        for name in path:
            node = node[name]
        node[last] = value
    return replace(run, config=config)


def levels(findings) -> set[str]:
    return {finding.level for finding in findings}


def test_a_sound_machine_and_run_have_nothing_but_ok():
    assert levels(check_packages(SOUND)) == levels(check_machine(SOUND)) == levels(check_run(SOUND, RUN)) == {"ok"}


@pytest.mark.parametrize(
    ("facts", "level", "says"),
    [
        (replace(SOUND, python="3.10.1"), "fail", "Python 3.10.1 is not >=3.11; make an environment"),
        (packaged(torch=None), "fail", "torch is not installed; pip install 'torch>=2.7'"),
        (packaged(lightning="2.5.0"), "fail", "lightning 2.5.0 is installed and s4eca needs "),
        (packaged(wandb="0.18.0"), "warning", "wandb 0.18.0 is installed and the extra wandb needs >=0.19"),
        (packaged(lightning="2.6.3"), "fail", "lightning 2.6.3 is a malicious release"),
        (packaged(pytorch_lightning="2.6.2"), "fail", "pytorch-lightning 2.6.2 is a malicious release"),
        (packaged(albumentationsx="2.1"), "fail", "pip uninstall albumentationsx"),
        (packaged(opencv_python="5", opencv_python_headless="5"), "warning", "overwrite each other's files"),
        (packaged(torch="2.13.0"), "fail", "torchvision 0.29.1 was built for torch==2.14.1 and torch 2.13.0"),
    ],
)
def test_packages(facts, level, says):
    (finding,) = [one for one in check_packages(facts) if says in one.says]
    assert finding.level == level
    assert finding.says.endswith(".")


def test_an_extra_that_is_not_there_is_no_finding():
    assert [finding.about for finding in check_packages(SOUND)] == ["packages"]
    # a local version is still a version of the range
    assert levels(check_packages(packaged(torch="2.14.1+cu130"))) == {"ok"}


def machine(**values) -> Facts:
    return replace(SOUND, **values)


def environment(**values: str) -> Facts:
    return replace(SOUND, environment=values)


NO_GPU = Torch(None, "13.0", ())


@pytest.mark.parametrize(
    ("facts", "level", "says"),
    [
        (machine(torch=Torch("libcudnn is missing")), "fail", "torch cannot be imported (libcudnn is missing)"),
        (SOUND, "ok", "PyTorch sees A100 (80.0 GiB)."),
        (machine(torch=replace(NO_GPU, gpus=(T4,))), "warning", "T4 has no bf16 units (compute capability 7.5)"),
        (machine(torch=NO_GPU), "ok", "there is none; the demo and tests run on the CPU"),
        (machine(torch=NO_GPU), "ok", "the CPU has no bf16 instructions"),
        (machine(torch=NO_GPU, cpu_bf16=True), "ok", "the CPU has bf16 instructions"),
        (machine(torch=NO_GPU, driver=("A100, driver 470.1",)), "warning", "cannot use it (A100, driver 470.1)"),
        (machine(torch=Torch(None, None), driver=("A100",)), "warning", "this torch is built for CPUs"),
        (
            machine(torch=NO_GPU, driver=("A100",), environment={"CUDA_VISIBLE_DEVICES": ""}),
            "warning",
            "CUDA_VISIBLE_DEVICES hides all GPUs",
        ),
        (machine(memory=(8 * GIB, 3 * GIB)), "warning", "3.0 GiB of memory are free"),
        (machine(shm=Disk(60 * 2**20, 64 * 2**20)), "warning", "--shm-size=8g"),
        (machine(disks={"outputs": Disk(GIB, GIB, False)}), "fail", "outputs cannot be written"),
        (machine(disks={"outputs": Disk(2**20, GIB)}), "fail", "1.0 MiB are free in outputs"),
        (machine(disks={"outputs": Disk(2 * GIB, 9 * GIB)}), "warning", "only 2.0 GiB are free in outputs"),
        (machine(open_files=1024), "warning", "ulimit -n 65536"),
        (environment(OMP_NUM_THREADS="16"), "warning", "OMP_NUM_THREADS=16 is more than the 8 cores"),
        (environment(TOKENIZERS_PARALLELISM="true"), "warning", "set it to false"),
        (environment(SLURM_JOB_ID="7"), "ok", "this is job 7, 1 tasks"),
        (environment(SLURM_JOB_ID="7", SLURM_NTASKS="4"), "fail", "ask for --ntasks-per-node"),
        (
            environment(SLURM_JOB_ID="7", SLURM_NTASKS="4", SLURM_NTASKS_PER_NODE="4"),
            "warning",
            "start the training with srun",
        ),
        (
            environment(WORLD_SIZE="2", RANK="0"),
            "warning",
            "WORLD_SIZE, RANK are set without LOCAL_RANK, MASTER_ADDR, MASTER_PORT",
        ),
        (
            environment(WORLD_SIZE="2", RANK="1", LOCAL_RANK="1", MASTER_ADDR="set", MASTER_PORT="1"),
            "ok",
            "this is process 1 of 2",
        ),
        (machine(hub=Hub(True)), "ok", "HF_HUB_OFFLINE is set, the hub is not asked; 0 models"),
        (machine(hub=Hub(False, False)), "warning", "the hub cannot be reached, 0 models"),
        (SOUND, "ok", "the hub can be reached; 1 models"),
    ],
)
def test_the_machine(facts, level, says):
    (finding,) = [one for one in check_machine(facts) if says in one.says]
    assert finding.level == level


BERT = "google-bert/bert-base-uncased"
SWIN = Wanted("vision.name=swin", "timm/swin")
OFFLINE = machine(hub=Hub(True))


@pytest.mark.parametrize(
    ("facts", "run", "level", "says"),
    [
        (SOUND, RUN, "ok", "data.root=/data/rrsis_d is there"),
        (SOUND, replace(RUN, there={"data.root=/x": False}), "fail", "/x does not exist; give the dataset's folder"),
        (SOUND, replace(RUN, there={"init_from=/x": False}), "fail", "init_from=/x does not exist"),
        (SOUND, replace(RUN, refusal="timm knows no model x."), "fail", "timm knows no model x."),
        (SOUND, replace(RUN, wanted=(Wanted("text.name=b", BERT),)), "ok", f"{BERT} (weights) is in the hub's cache"),
        (SOUND, replace(RUN, wanted=(Wanted("text.name=b", BERT, "tokenizer"),)), "ok", "(tokenizer) will be fetched"),
        (SOUND, replace(RUN, wanted=(SWIN,)), "ok", "timm/swin (weights) will be fetched from the hub"),
        (
            OFFLINE,
            replace(RUN, wanted=(SWIN,)),
            "fail",
            "is not in the hub's cache and HF_HUB_OFFLINE is set; fetch",
        ),
        (machine(hub=Hub(False, False)), replace(RUN, wanted=(SWIN,)), "fail", "and the hub cannot be reached; fetch"),
        (
            OFFLINE,
            changed(replace(RUN, wanted=(replace(SWIN, kept=True),)), weights_folder="/w"),
            "ok",
            "weights_folder=/w has timm/swin (weights)",
        ),
        (
            SOUND,
            changed(replace(RUN, wanted=(replace(SWIN, kept=False),)), weights_folder="/w"),
            "fail",
            "weights_folder=/w lacks timm/swin (weights) for vision.name=swin; add it",
        ),
        (machine(torch=NO_GPU), RUN, "fail", "trainer.accelerator=gpu and PyTorch sees no GPU"),
        (machine(torch=NO_GPU), changed(trainer__accelerator="auto"), "ok", "auto will be the CPU"),
        (SOUND, changed(trainer__devices=4), "fail", "trainer.devices=4 and PyTorch sees 1 GPUs"),
        (SOUND, changed(trainer__devices=[1]), "fail", "trainer.devices=[1] and PyTorch sees 1 GPUs"),
        (
            SOUND,
            changed(trainer__precision="32-true", model__segmenter__tower_dtype="bf16"),
            "fail",
            "tower_dtype=bf16 and trainer.precision=32-true; set trainer.precision=bf16-mixed",
        ),
        (machine(torch=replace(NO_GPU, gpus=(T4,))), RUN, "warning", "is emulated on T4"),
        (
            machine(torch=replace(NO_GPU, gpus=(T4,))),
            changed(model__segmenter__tower_dtype="bf16", model__fused_optimizer=True),
            "warning",
            "trainer.precision=16-mixed model.segmenter.tower_dtype=fp32 model.fused_optimizer=false.",
        ),
        (SOUND, changed(trainer__accelerator="cpu"), "warning", "bf16-mixed is slow on this CPU"),
        (machine(torch=NO_GPU), changed(trainer__accelerator="auto"), "warning", "bf16-mixed is slow on this CPU"),
        (
            SOUND,
            changed(trainer__accelerator="cpu", trainer__precision="16-mixed"),
            "warning",
            "Lightning takes bf16-mixed instead",
        ),
        (machine(compilers=()), changed(model__segmenter__compile="block"), "fail", "install g++"),
        (SOUND, replace(RUN, choices={"logger": "wandb"}), "fail", "logger=wandb needs wandb"),
        (
            SOUND,
            replace(RUN, choices={"hydra/launcher": "submitit_slurm"}),
            "fail",
            "hydra/launcher=submitit_slurm needs hydra-submitit-launcher, which is missing; pip install 's4eca[slurm]'",
        ),
        (packaged(wandb="0.31"), changed(logger__wandb={"offline": False}), "fail", "run wandb login"),
        (packaged(wandb="0.31"), changed(logger__wandb={"offline": True}), "ok", "W&B runs offline"),
        (
            replace(packaged(wandb="0.31"), wandb=Wandb(True)),
            changed(logger__wandb={"offline": False}),
            "ok",
            "W&B has a login here",
        ),
        (SOUND, changed(vision__image_size=482), "fail", "set image_size=480 or image_size=484"),
        (SOUND, changed(data__num_workers=16), "warning", "data.num_workers=16 are more than the 8 cores"),
        # 4 bytes x 480 x 480 pixels x 8 samples x 2 batches x 4 workers
        (machine(shm=Disk(32 * 2**20, 2 * GIB)), RUN, "fail", "4 loader workers keep up to 56.2 MiB"),
        (machine(disks={"outputs/run": Disk(GIB, GIB, False)}), RUN, "fail", "outputs/run cannot be written"),
        (machine(disks={"outputs/run": Disk(GIB // 2, GIB)}), RUN, "warning", "checkpoints want 1.0 GiB"),
        (
            machine(disks={"outputs/run": Disk(6 * GIB, 9 * GIB)}),
            changed(tuning___target_="s4eca.tuning.FullFineTuning"),
            "warning",
            "full fine-tuning's checkpoints want 8.0 GiB",
        ),
    ],
)
def test_a_run(facts, run, level, says):
    (finding,) = [one for one in check_run(facts, run) if says in one.says]
    assert finding.level == level


def test_a_cpu_with_bf16_is_not_warned_of():
    fast = machine(torch=NO_GPU, cpu_bf16=True)
    for precision in ("bf16-mixed", "bf16-true", "bf16"):
        run = changed(trainer__accelerator="auto", trainer__precision=precision)
        assert "precision" not in {finding.about for finding in check_run(fast, run)}
        (slow,) = [one for one in check_run(replace(fast, cpu_bf16=False), run) if one.about == "precision"]
        assert slow.level == "warning"
    half = changed(trainer__accelerator="auto", trainer__precision="16-mixed")
    (finding,) = [one for one in check_run(fast, half) if one.about == "precision"]
    assert "trainer.precision=bf16-mixed or trainer.precision=32-true" in finding.says
    assert "bf16" not in {finding.about for finding in check_machine(SOUND)}, "with a GPU the CPU's do not matter"


@pytest.mark.parametrize(
    ("line", "fast"),
    [
        ("flags\t\t: fpu sse2 avx avx2 fma", False),
        ("flags\t\t: fpu avx2 avx512f avx512bw avx512_vnni", False),
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni", True),
        ("flags\t\t: fpu avx2 amx_bf16 amx_tile", True),
        ("Features\t: fp asimd sve i8mm bf16", True),
        ("Features\t: fp asimd evtstrm aes", False),
        ("", False),
    ],
)
def test_the_flags_of_a_cpu(line, fast):
    assert cpu_has_bf16(f"processor\t: 0\nvendor_id\t: bf16\n{line}\nbugs\t: spectre\n") == fast


def test_image_sizes():
    assert multiple_of({"_target_": "s4eca.towers.ConvNextTower", "name": "convnext_base", "options": {}}) == 32
    assert multiple_of({"name": "vit_base_patch14_reg4_dinov2.lvd142m"}) == 14
    assert multiple_of({"name": "vit_base_patch16", "options": {"patch_size": 8}}) == 8
    assert multiple_of({"name": "something"}) is None


def test_paths_of_a_config():
    config = {
        "data": {"root": "/data", "parts": {"a": {"root": "a"}, "b": None, "c": {"root": "/c"}}},
        "vision": {"weights": "/swin.pth"},
        "text": {"weights": "hf:a/b/c"},
        "init_from": "wandb:x/y/z:v0",
        "weights_folder": "/w",
    }
    assert list(named_paths(config)) == [
        ("data.parts.a.root", "/data/a"),
        ("data.parts.c.root", "/c"),
        ("vision.weights", "/swin.pth"),
        ("weights_folder", "/w"),
    ]
    assert not list(named_paths({"data": {}, "resume": "auto"})), "it starts where nothing is there"
    drawn = {"data": {"_target_": "s4eca.data.SyntheticDataModule", "root": "data/synthetic"}}
    assert not list(named_paths(drawn))


def test_what_a_run_takes_from_the_hub(tmp_path):
    run = plan_run(["data.root=/x"])
    assert run.checkpoints == "outputs/s4eca_rrsis_d"
    assert run.there == {"data.root=/x": False}
    assert {item.repository for item in run.wanted} == {"timm/swin_base_patch4_window12_384.ms_in22k", BERT}
    assert {item.kept for item in run.wanted} == {None}
    assert not plan_run(["experiment=demo"]).wanted
    (tmp_path / "bert.pt").touch()
    weights = [f"text.weights={tmp_path / 'bert.pt'}", "vision.weights=random"]
    (tokenizer,) = plan_run([*weights, "data.root=/x"]).wanted
    assert (tokenizer.setting, tokenizer.repository, tokenizer.part) == (f"text.name={BERT}", BERT, "tokenizer")


def test_what_is_cached_is_found_by_its_name(tmp_path, monkeypatch):
    """Without timm and transformers, and as they would have found it."""
    swin = "timm/swin_base_patch4_window12_384.ms_in22k"
    exact = {item.repository for item in plan_run(["data.root=/x"]).wanted}
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in (swin, BERT):
        snapshot = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / "1"
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").touch()
    (snapshot / "vocab.txt").touch()
    monkeypatch.setattr("s4eca.weights_folder.list_needs", None)
    assert {item.repository for item in plan_run(["data.root=/x"]).wanted} == exact == {swin, BERT}
    config = {"name": "a", "weights": "hf:owner/repo/folder/file.pt", "tokenizer": "b/c"}
    found = [(item.repository, item.part) for item in _by_name("text", config)]
    assert found == [("owner/repo", "folder/file.pt"), ("b/c", "tokenizer")]


def test_nothing_private_is_told():
    told = {
        "~": ["/home/ada", "/home/ada/x", "/scratch/ada/data", "/home/adam", "/data/ada_1"],
        "url": "postgresql://ada:secret@db/x",
        "token": "hf_" + "a" * 34,
        "key": "0123456789" * 4,
        "number": 3,
    }
    assert redacted(told, "/home/ada", "ada") == {
        "~": ["~", "~/x", "/scratch/USER/data", "/home/adam", "/data/ada_1"],
        "url": "postgresql://***@db/x",
        "token": "***",
        "key": "***",
        "number": 3,
    }


def test_what_is_looked_at(tmp_path):
    assert disk(str(tmp_path / "a" / "b")).writable
    (tmp_path / "file").touch()
    assert not disk(str(tmp_path / "file" / "folder")).writable
    for name in (
        *(
            "a--b/snapshots/1/model.safetensors",
            "a--b/snapshots/1/README.md",
            "c--d/refs/main",
            "e/snapshots/2/vocab.txt",
        ),
        *("f--g/snapshots/1/deep/clip.pt", "h/snapshots/1/config.json"),
    ):
        path = tmp_path / "hub" / f"models--{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "hub" / "models--e" / "snapshots").joinpath(".DS_Store").touch()
    (tmp_path / "hub" / "models--h" / "snapshots" / "1" / "._model.safetensors").touch()
    (tmp_path / "hub" / "models--h" / "snapshots" / "1" / "model.bin").symlink_to("interrupted")
    assert cached_parts({"HF_HOME": str(tmp_path)}, tmp_path) == {
        "a/b": ("model.safetensors", "weights"), "e": ("tokenizer",), "f/g": ("deep/clip.pt", "weights"),
    }  # fmt: skip
    assert cached_parts({}, tmp_path) == {}
    assert not look_for_login({}, tmp_path).logged_in
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password made-up\n")
    assert look_for_login({}, tmp_path).logged_in
    assert look_for_login({"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}, tmp_path / "none") == Wandb(True, "offline")


def test_requirements_are_those_of_the_project():
    requires, python = requirements()
    assert python == ">=3.11"
    assert "albumentations==2.0.8" in requires
    assert 'wandb>=0.19 ; extra == "wandb"' in requires
    assert packages()["albumentations"] == "2.0.8"


app = typer.Typer()
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(doctor)


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_the_command_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("experiment=demo", "trainer.accelerator=cpu", "data.num_workers=0", "--json")
    told = json.loads(done.output)
    assert done.exit_code == 0, done.output
    assert not told["fails"]
    assert told["packages"]["albumentations"] == "2.0.8"
    assert told["hub"]["offline"], "the tests set HF_HUB_OFFLINE"
    assert set(told["disks"]) == {"outputs/demo"}
    assert "hub" in {finding["about"] for finding in told["findings"]}
    assert not list(tmp_path.iterdir()), "it only looks"


def test_the_command_says_what_would_fail(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("experiment=demo", "data=rrsis_d", "image_size=129", f"vision.weights={tmp_path / 'swin.pth'}")
    assert done.exit_code == 1
    printed = " ".join(done.output.split())
    for sentence in ("fail data.root: data/rrsis_d does not exist", "fail image_size: image_size=129 is no multiple"):
        assert sentence in printed
    assert f"fail vision.weights: vision.weights={tmp_path / 'swin.pth'} does not exist" in printed
    done = run("tuning=s4ecaa")
    assert done.exit_code == 1
    assert "fail config: The config cannot be composed" in " ".join(done.output.split())
