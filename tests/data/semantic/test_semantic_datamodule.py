from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import LightningModule, Trainer
from omegaconf import OmegaConf
from PIL import Image

from fake_isaid import save, write_patches, write_scenes
from s4eca.build import instantiate
from s4eca.data.semantic.datamodule import SemanticDataModule
from s4eca.data.semantic.palette import ISAID_CLASSES
from s4eca.errors import S4ecaError

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.filterwarnings("ignore:.*are expected")


def ids(module: SemanticDataModule) -> list[str]:
    return [sample.id for batch in module.test_dataloader() for sample in batch]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_are_the_files_at_their_own_size(tmp_path, num_workers):
    scenes = write_scenes(tmp_path, {"P0001": (9, 14), "P0002": (20, 7), "P0003": (6, 6)})
    module = SemanticDataModule(root=tmp_path, batch_size=2, num_workers=num_workers)
    batches = list(module.test_dataloader())
    assert [len(batch) for batch in batches] == [2, 1]
    samples = [sample for batch in batches for sample in batch]
    assert [(sample.index, sample.id) for sample in samples] == [(0, "P0001"), (1, "P0002"), (2, "P0003")]
    for sample in samples:
        image, labels = scenes[sample.id]
        assert (sample.image.dtype, sample.labels.dtype) == (torch.uint8, torch.uint8)
        assert sample.image.permute(1, 2, 0).tolist() == image.tolist()
        assert sample.labels.tolist() == labels.tolist()
        assert sample.size == labels.shape


def test_a_limit_draws_a_part_that_only_the_seed_decides(tmp_path):
    names = list(write_patches(tmp_path, 9))
    whole = SemanticDataModule(root=tmp_path, num_workers=0)
    assert ids(whole) == names
    assert "subset" not in whole.facts()
    four, six = (SemanticDataModule(root=tmp_path, num_workers=0, limit=limit, seed=3) for limit in (4, 6))
    assert ids(four) == ids(SemanticDataModule(root=tmp_path, num_workers=0, limit=4, seed=3))
    assert ids(four) == sorted(set(ids(four)))
    assert set(ids(four)) < set(ids(six)) < set(names)
    assert four.facts() == {
        "dataset": "isaid",
        "split": "val",
        "layout": "patches",
        "subset": {"images": 4, "of": 9, "seed": 3},
    }
    assert any(
        ids(SemanticDataModule(root=tmp_path, num_workers=0, limit=4, seed=seed)) != ids(four) for seed in (4, 5)
    )
    assert "subset" not in SemanticDataModule(root=tmp_path, limit=9).facts()
    assert [sample.index for batch in four.test_dataloader() for sample in batch] == [0, 1, 2, 3]


def test_the_fingerprint_changes_with_the_images(tmp_path):
    write_patches(tmp_path, 4)
    whole, part = (SemanticDataModule(root=tmp_path, limit=limit).fingerprint() for limit in (None, 2))
    assert (whole["val"]["count"], part["val"]["count"]) == (4, 2)
    assert whole["val"]["sha256"] != part["val"]["sha256"]
    assert whole == SemanticDataModule(root=tmp_path).fingerprint()


def test_the_test_split_can_be_predicted_but_not_scored(tmp_path):
    write_patches(tmp_path, 2, split="test")
    module = SemanticDataModule(root=tmp_path, num_workers=0)
    module.evaluated = "test"
    module.setup("predict")
    assert [batch[0].labels for batch in module.predict_dataloader()] == [None, None]
    for task in (lambda: module.setup("test"), module.test_dataloader):
        with pytest.raises(S4ecaError, match="no labels to score against"):
            task()


def test_training_is_refused(tmp_path):
    with pytest.raises(S4ecaError, match="without training"):
        SemanticDataModule(root=tmp_path).setup("fit")


def test_missing_files_show_at_setup(tmp_path):
    with pytest.raises(S4ecaError, match="is not complete"):
        SemanticDataModule(root=tmp_path).setup("test")


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"num_workers": -1}, {"limit": 0}, {"seed": 1.5}])
def test_options_are_checked(tmp_path, option):
    (name,) = option
    with pytest.raises(S4ecaError, match=f"data.{name}="):
        SemanticDataModule(root=tmp_path, **option)


def test_an_image_and_labels_of_other_sizes_are_an_error(tmp_path):
    (name,) = write_patches(tmp_path, 1)
    save(tmp_path / "ann_dir" / "val" / f"{name}_instance_color_RGB.png", np.zeros((12, 11), np.uint8))
    with pytest.raises(S4ecaError, match=r"has \(12, 11\) pixels and its image \(12, 12\)"):
        next(iter(SemanticDataModule(root=tmp_path, num_workers=0).test_dataloader()))


class Looker(LightningModule):
    """Notes what Lightning hands to a test step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def test_step(self, batch, batch_idx):
        self.seen += [(sample.index, sample.id, int(sample.labels.sum())) for sample in batch]


def test_lightning_runs_over_it(tmp_path):
    written = write_patches(tmp_path, 3)
    module, data = Looker(), SemanticDataModule(root=tmp_path, batch_size=2, num_workers=0)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.test(module, datamodule=data, verbose=False)
    assert module.seen == [(i, name, int(labels.sum())) for i, (name, labels) in enumerate(written.items())]


def test_the_config_builds_it(tmp_path):
    written = write_patches(tmp_path, 3)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("eval", overrides=["data=isaid", f"data.root={tmp_path}", "data.limit=2", "seed=5"])
    module = instantiate(OmegaConf.to_container(config.data, resolve=True), "data")
    assert (type(module), module.seed, module.name) == (SemanticDataModule, 5, "isaid")
    assert set(ids(module)) < set(written)
    assert module.classes == ISAID_CLASSES
    assert Image.open(module.images("val")[0].image).size == (12, 12)
