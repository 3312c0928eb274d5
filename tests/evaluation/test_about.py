"""What made a number: backbones with equal names, random and saved weights, seeds, machines, results of before."""

import copy
import json
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from typer.testing import CliRunner

from made_evaluation import make_evaluation
from runs import TINY, composed
from s4eca.build import build_data, build_module, build_towers
from s4eca.checkpoint import SELECTED_BY, Checkpoint, describe, read_checkpoint, share
from s4eca.cli.eval import default_folder, selected_by
from s4eca.cli.eval import describe as describe_evaluation
from s4eca.cli.evaluating import Options
from s4eca.cli.main import app
from s4eca.evaluation.about import UNSTATED, lacks_identity, list_differences, list_entries, name_backbones
from s4eca.evaluation.page.build import write_page
from s4eca.evaluation.report import write_metrics
from s4eca.evaluation.results import read_evaluation, write_samples
from s4eca.evaluation.summary import summarise_evaluation
from s4eca.evaluation.tables.build import build_tables
from s4eca.evaluation.tables.runs import Run, find_runs
from s4eca.identity import describe_training
from s4eca.towers import BertTower, SwinTower, ViTTower

DRAWN = ["data.train=4", "data.val=2", "data.test=2", "data.scene_size=64", "data.batch_size=2", "data.num_workers=0"]
VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2}
FILM = {"_target_": "s4eca.fusion.film.FiLM", "_partial_": True}
FROZEN = {"fusion": FILM, "tuning": {"_target_": "s4eca.tuning.Frozen"}}
CLIP = "vit_base_patch32_clip_quickgelu_224.openai"
SHAPES = {"t": {"embed_dim": 16, "depths": [2, 2, 2, 2]}, "l": {"embed_dim": 16, "depths": [2, 2, 4, 2]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that gives the `about` of a run's evaluation by the code of `eval.py`, and its checkpoint."""
    root = tmp_path_factory.mktemp("made")
    base = composed(*TINY, *DRAWN, "name=mine", f"data.root={root}/data")
    data = build_data(base)
    data.prepare_data()

    def make(selected_by="val/mIoU", stored=None, **changes):
        config = OmegaConf.create(copy.deepcopy(base))
        for key, value in changes.items():
            OmegaConf.update(config, key.replace("__", "."), value, merge=False, force_add=True)
        config = OmegaConf.to_container(config)
        module = build_module(config, build_towers(config))
        identity = {"name": data.name, **data.fingerprint(("train", "val"))}
        meta = describe(module.segmenter, config, module.segmenter.text.load_tokenizer(), identity)
        meta = {**meta, SELECTED_BY: selected_by, **(stored or {})}
        checkpoint = Checkpoint(root / "best.ckpt", module.segmenter.learned_state(), meta)
        return describe_evaluation(config, checkpoint, data, module, Options()), checkpoint

    make.root, make.config = root, base
    return make


@pytest.fixture(scope="module")
def weights(made):
    """Local files and folders of weights, by name."""
    files, config = {}, made.config
    for name, seed in (("random", 0), ("other", 7)):
        tower = SwinTower(config["vision"]["name"], "random", seed, 64, config["vision"]["options"])
        files[f"swin_{name}"] = made.root / f"swin_{name}.safetensors"
        safetensors.torch.save_file(_contiguous(tower), files[f"swin_{name}"])
    bert = BertTower(weights="random", seed=7, options=config["text"]["options"])
    files["bert"] = made.root / "bert"
    bert.model.save_pretrained(files["bert"])
    bert.load_tokenizer().save_pretrained(files["bert"])
    for name, seed in (("RemoteCLIP-ViT-B-32", 1), ("RS5M_ViT-B-32", 2)):
        files[name] = made.root / f"{name}.pt"
        torch.save(_contiguous(ViTTower(CLIP, "random", seed, 64, VIT)), files[name])
    return {name: str(path) for name, path in files.items()}


def _contiguous(tower):
    return {name: value.contiguous() for name, value in tower.model.state_dict().items()}


def run_of(about, miou=0.5, path="run/metrics.json"):
    names = ("Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9", "oIoU")
    return Run(Path(path), about, {"lavt": {**dict.fromkeys(names, 0.25), "mIoU": miou, "n": 2, "n_empty": 0}})


def table_of(*abouts):
    runs = [run_of(about, 0.5 + 0.1 * i, f"{i}/metrics.json") for i, about in enumerate(abouts)]
    (table,) = build_tables(runs, [])
    return [row.label for row in table.rows], "\n".join(text for _, text in table.notes)


def swin(kind, **more):
    """Swin-T and Swin-L by their names; the sizes behind them are small."""
    name = {"t": "swin_tiny_patch4_window7_224", "l": "swin_large_patch4_window12_384"}[kind]
    return {"vision__name": name, "vision__options": {**SHAPES[kind], "num_heads": [1, 2, 4, 8]}, **more}


def clip(weights):
    target = "s4eca.towers.ViTTower"
    node = {"_target_": target, "name": CLIP, "weights": weights, "image_size": 64, "options": VIT}
    return {"vision": node}


# ---- two backbones are two rows


def test_equal_names_and_seeds_on_two_backbones_are_two_rows_and_both_are_named(made, weights, tmp_path):
    pairs = {
        "random and saved": ({}, {"vision__weights": weights["swin_other"]}, "random weights", "swin_other"),
        "saved text": ({}, {"text__weights": weights["bert"], "text__options": {}}, "random weights", "bert"),
        "Swin-T and Swin-L": (swin("t"), swin("l"), "swin_tiny", "swin_large"),
        "RemoteCLIP and GeoRSCLIP": (
            *(clip(weights[name]) for name in ("RemoteCLIP-ViT-B-32", "RS5M_ViT-B-32")),
            *("RemoteCLIP-ViT-B-32.pt", "RS5M_ViT-B-32.pt"),
        ),
        "two random seeds": ({}, {"vision__seed": 3}, "seed 0", "seed 3"),
    }
    for what, (first, second, *words) in pairs.items():
        abouts = [made(**change)[0] for change in (first, second)]
        for seed in (0, 1):
            labels, notes = table_of(abouts[0], {**abouts[1], "seed": seed})
            assert len(set(labels)) == 2, what
            assert "deviation" not in notes, what
            assert "2 rows are not seeds of one another, as they differ in" in notes, what
            assert "backbone (" in notes, what
            for word in words:
                assert any(word in label for label in labels), (what, labels)
                assert word in notes, what
        for number, (about, word) in enumerate(zip(abouts, words, strict=True)):
            if what not in ("random and saved", "RemoteCLIP and GeoRSCLIP"):
                continue
            page, summary = written(tmp_path / f"{what}{number}", about)
            assert word in page
            for tower in ("vision", "text"):
                stated = summary["about"]["backbones"][tower]
                assert len(stated["sha256"]) == 64
                assert stated["name"] in page
                assert stated["sha256"][:12] in page


def written(folder, about):
    evaluation = make_evaluation(4, ("ship",), **about)
    summary = summarise_evaluation(evaluation, replicates=0)
    write_page(folder, evaluation, summary, [])
    write_samples(folder, evaluation)
    assert read_evaluation(folder).about == json.loads(json.dumps(evaluation.about)), "in the parquet file's metadata"
    as_json, _ = write_metrics(folder, summary)
    return (folder / "report.html").read_text(), json.loads(as_json.read_text())


def test_fusion_decoder_loss_and_training_data_are_stated(made):
    about, checkpoint = made()
    assert about["tuning"] == "s4eca"
    assert about["fusion"] == {"name": "NoFusion"}
    assert about["decoder"] == {"name": "FPNDecoder", "width": 8}
    assert about["loss"]["name"] == made.config["loss"]["_target_"].rpartition(".")[2]
    assert about["trained_on"] == "synthetic"
    assert about["training_data"]["train"] == checkpoint.meta["data"]["train"]
    assert about["training_data"]["train"]["count"] == 4
    vision, text = about["backbones"]["vision"], about["backbones"]["text"]
    assert (vision["source"], text["source"]) == ("random:0", "random:0")
    assert vision["options"] == made.config["vision"]["options"], "what random weights are made of"
    assert name_backbones(about) == (
        "swin_tiny_patch4_window7_224 (random weights of seed 0) and"
        " google-bert/bert-base-uncased (random weights of seed 0)"
    )
    assert str(made.root) not in json.dumps(about), "no path"


def test_a_share_of_the_training_images_is_stated_and_seeds_that_drew_others_are_seeds(made, tmp_path):
    abouts = []
    for seed in (0, 1):
        data = copy.deepcopy(made()[1].meta["data"])
        data["train"] = {"count": 1, "sha256": f"{seed}" * 64, "drawn_from": {**data["train"], "share": 0.25}}
        abouts.append(made(stored={"data": data}, data__train_share=0.25, seed=seed)[0])
    assert table_of(*abouts)[0] == ["mine"]
    assert "25 % of the images of 4 samples" in written(tmp_path, abouts[0])[0]


@pytest.mark.parametrize(
    ("change", "entry"),
    [
        ({"fusion": FILM}, "fusion (NoFusion; FiLM)"),
        ({"decoder__width": 16}, "decoder.width (8; 16)"),
        ({"loss__dice_weight": 0.5}, "loss.dice_weight (1.0; 0.5)"),
        ({"model__lr": 0.5}, "model.lr ("),
        ({"data__batch_size": 4}, "effective batch (2; 4)"),
        ({"data__train_share": 0.3}, "data.train_share (not stated; 0.3)"),
        (FROZEN, "tuning (s4eca; frozen)"),
        ({"stored": {"init_from": {"name": "a.ckpt", "sha256": "ab" * 32}}, "init_from": "a.ckpt"}, "init from ("),
        ({"selected_by": None}, "checkpoint chosen by (val/mIoU; the last step)"),
    ],
)
def test_the_entry_that_keeps_runs_apart_is_named(made, change, entry):
    labels, notes = table_of(made()[0], made(seed=1, **change)[0])
    assert len(labels) == 2
    assert entry in notes, notes


def test_a_joint_training_states_its_datasets_and_init_from_its_weights(made):
    parts = {"rs": {"layout": "rrsis_d", "root": "/a"}, "few": {"layout": "refsegrs", "root": "/b", "repeat": 4}}
    start = {"init_from": {"name": "first.ckpt", "sha256": "ab" * 32}}
    about, _ = made(data__parts=parts, init_from="runs/first.ckpt", stored=start)
    assert about["training_data"]["parts"] == {"rs": "rrsis_d", "few": "refsegrs, 4 times"}
    assert about["init_from"] == start["init_from"]
    moved, _ = made(data__parts=parts, init_from="/elsewhere/first.ckpt", stored=start, seed=1)
    assert list_entries(moved) == list_entries(about)


# ---- one run is one row


ELSEWHERE = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 9),
        "data__root": st.sampled_from(["/data/a", "b"]),
        "data__num_workers": st.integers(0, 8),
        "data__cache": st.just("/scratch"),
        "data__pin_memory": st.booleans(),
        "trainer__accelerator": st.sampled_from(["cpu", "gpu", "auto"]),
        "trainer__devices": st.sampled_from([1, [0], [5], "1"]),
        "trainer__enable_progress_bar": st.booleans(),
        "callbacks__progress_bar": st.none(),
        "trainer__log_every_n_steps": st.integers(1, 99),
        "model__segmenter__grad_checkpointing": st.sampled_from(["none", "block", "stage"]),
        "model__segmenter__compile": st.sampled_from(["none", "block"]),
        "logger": st.just({"wandb": {"project": "mine"}}),
        "weights_folder": st.just("/models"),
        "evaluate": st.sampled_from([None, "test"]),
    },
)


@settings(max_examples=15, deadline=None)
@given(changes=ELSEWHERE)
def test_seeds_machines_paths_and_progress_bars_are_no_other_run(made, changes):
    about, checkpoint = _first(made)
    config = OmegaConf.create(copy.deepcopy(checkpoint.config))
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, merge=False, force_add=True)
    meta = {**checkpoint.meta, "config": OmegaConf.to_container(config)}
    other = {**about, **describe_training(meta), "seed": about["seed"] + 1}
    labels, notes = table_of(about, other)
    assert labels == ["mine"]
    assert "mean ± sample deviation over seeds 0, 1" in notes
    assert "not seeds of one another" not in notes


_kept = {}


def _first(made):
    return _kept.setdefault(made, made())


def test_the_same_weights_from_two_places_are_one_backbone(made, weights):
    """A file, the same file elsewhere, and what it was saved from."""
    copied = made.root / "copy.safetensors"
    copied.write_bytes(Path(weights["swin_random"]).read_bytes())
    sources = ("random", weights["swin_random"], str(copied))
    abouts = [made(vision__weights=source, seed=seed)[0] for seed, source in enumerate(sources)]
    assert table_of(*abouts)[0] == ["mine"]


def test_one_file_under_two_architectures_is_two_backbones(made, weights):
    abouts = []
    for name in (CLIP, "vit_base_patch32_clip_224.openai"):  # QuickGELU and GELU
        change = clip(weights["RemoteCLIP-ViT-B-32"])
        change["vision"] = {**change["vision"], "name": name}
        abouts.append(made(**change, seed=len(abouts))[0])
    assert len({about["backbones"]["vision"]["sha256"] for about in abouts}) == 1
    assert len(table_of(*abouts)[0]) == 2


def test_shared_folders_of_two_seeds_are_seeds_and_say_what_chose_them(made, tmp_path):
    abouts = []
    for seed, version in enumerate(("v1.2", "v1.3")):
        _, checkpoint = made(seed=seed)
        shared = read_checkpoint(share(checkpoint, tmp_path / version))
        module, data = build_module(shared.config), build_data(shared.config)
        abouts.append(describe_evaluation(shared.config, shared, data, module, Options()))
    assert [about["checkpoint"] for about in abouts] == ["v1.2", "v1.3"]
    assert table_of(*abouts)[0] == ["mine"]
    assert {about["selected_by"] for about in abouts} == {"val/mIoU"}
    folders = {default_folder(tmp_path / version, "synthetic", Options()) for version in ("v1.2", "v1.3")}
    assert len(folders) == 2


def test_checkpoints_of_before_are_told_by_their_names(made):
    _, checkpoint = made()
    meta = {name: value for name, value in checkpoint.meta.items() if name != SELECTED_BY}
    chosen = partial(Checkpoint, state={}, meta=meta)
    assert selected_by(chosen(Path("best.ckpt"))) == "val/mIoU"
    assert selected_by(chosen(Path("last.ckpt"))) == "the last step"


# ---- results of before


def old(about, **changes):
    """The about of the version before: no backbones, and a hash that left the weights out."""
    new = ("backbones", "fusion", "decoder", "loss", "training_data", "config", "init_from")
    return {**{key: value for key, value in about.items() if key not in new}, "recipe": "0123456789abcdef", **changes}


def test_results_without_identity_are_read_and_merged_with_nothing(made):
    about, _ = _first(made)
    assert lacks_identity(old(about))
    assert not lacks_identity(about)
    labels, notes = table_of(old(about), old(about, seed=1), {**about, "seed": 2}, {**about, "seed": 3})
    assert len(labels) == 3, "two old ones, and the two new seeds as one"
    assert sum(UNSTATED in label for label in labels) == 2
    assert f": {UNSTATED}" in notes
    assert "2 evaluations are shown each for itself, as their backbones are not stated (seeds 0, 1)" in notes
    assert f"as they differ in backbones ({UNSTATED}; swin_tiny" in notes
    assert not any("None" in label for label in labels)


def test_foreign_predictions_state_what_they_can(made):
    given = {"name": "theirs", "dataset": "rrsis_d", "split": "test", "predictions": "p.json", "seed": 0}
    assert not lacks_identity({**given, "tuning": "lora"})
    stated = {**given, "backbones": {"vision": {"name": "Swin-B"}, "text": {"name": "BERT"}}}
    labels, notes = table_of(stated, {**stated, "seed": 1})
    assert labels == ["theirs"]
    assert "Backbones. theirs: Swin-B and BERT." in notes
    labels, _ = table_of(stated, {**given, "seed": 1})
    assert len(labels) == 2
    labels, notes = table_of(given, {**given, "seed": 1})
    assert labels == ["theirs"], "its user has named it and its seeds"
    assert UNSTATED in notes


# ---- compare


def test_compare_names_method_and_backbones_and_what_differs(made, weights, tmp_path):
    places = {}
    for name, change in (
        ("a", {}),
        ("b", {"vision__weights": weights["swin_other"]}),
        ("c", FROZEN),
        ("d", {"seed": 1}),
    ):
        places[name] = tmp_path / name
        write_samples(places[name], make_evaluation(4, ("ship",), **made(**change)[0]))

    def said(first, second):
        words = ["compare", str(places[first]), str(places[second]), "--replicates", "5"]
        return CliRunner().invoke(app, words, catch_exceptions=False).output.splitlines()[:3]

    for second, told in (("b", "vision backbone ("), ("c", "tuning (s4eca; frozen)"), ("d", "seed (0; 1)")):
        first_line, second_line, third = said("a", second)
        assert first_line.removeprefix("A: ").partition(" (/")[0] != second_line.removeprefix("B: ").partition(" (/")[0]
        assert "swin_tiny_patch4_window7_224 (" in first_line
        assert third.startswith("They differ in ")
        assert told in third
    assert said("a", "a")[2] == "They state no difference."
    assert list_differences(*(read_evaluation(places[name]).about for name in "aa")) == {}


def test_runs_are_found_on_disk_with_their_identity(made, tmp_path):
    for seed in (0, 1):
        evaluation = make_evaluation(2, ("ship",), **{**_first(made)[0], "seed": seed})
        write_metrics(tmp_path / f"run{seed}" / "eval" / "best", summarise_evaluation(evaluation, replicates=0))
    (table,) = build_tables(find_runs([tmp_path]), [])
    (row,) = table.rows
    assert row.fields["seeds"] == "0 1"
    assert "swin_tiny_patch4_window7_224" in row.fields["backbones"]
