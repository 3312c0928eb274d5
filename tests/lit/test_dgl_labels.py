import numpy as np
import pytest
from lightning import Trainer

import fake_isaid
from dgl_rsis.pipelines import tiny_pipeline
from s4eca.data.semantic.datamodule import SemanticDataModule
from s4eca.errors import S4ecaError
from s4eca.lit.dgl_labels import DglLabels

SETTINGS = {"tau": 100.0, "threshold": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("isaid")
    fake_isaid.write_scenes(root, {"P0001": (40, 48), "P0002": (56, 40), "P0003": (40, 40)})
    module = SemanticDataModule(root=root, num_workers=0, batch_size=2)
    with pytest.warns(UserWarning, match="3"):  # not the published number of scenes
        module.images("val")
    return module


def test_the_matrix_is_that_of_the_label_maps(data):
    module = DglLabels(tiny_pipeline(knowledge="isaid"), SETTINGS, data.labels, pictures=2)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.test(module, datamodule=data, verbose=False)
    matrix = np.zeros((16, 16), np.int64)
    samples = [sample for batch in data.test_dataloader() for sample in batch]
    for sample in samples:
        np.add.at(matrix, (sample.labels.numpy().ravel(), module.predict(sample).ravel()), 1)
    np.testing.assert_array_equal(module.scores.matrix, matrix)
    assert matrix.sum() == 40 * 48 + 56 * 40 + 40 * 40
    with np.errstate(invalid="ignore"):
        ious = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
    assert trainer.callback_metrics["test/mIoU16"].item() == pytest.approx(np.nanmean(ious), abs=1e-6)
    assert trainer.callback_metrics["test/mIoU15"].item() == pytest.approx(np.nanmean(ious[1:]), abs=1e-6)
    trainer.test(module, datamodule=data, verbose=False)
    np.testing.assert_array_equal(module.scores.matrix, matrix, err_msg="a second test starts anew")
    assert module.images == 3
    assert len(module.gallery.pictures) == 2
    assert module.summary()["proposals_per_image"] == 2

    predictions = trainer.predict(module, dataloaders=data.predict_dataloader())
    assert [id for batch in predictions for id, _ in batch] == ["P0001", "P0002", "P0003"]
    np.testing.assert_array_equal(predictions[0][0][1], module.predict(samples[0]))


def test_knowledge_of_other_classes_is_refused(data):
    with pytest.raises(S4ecaError, match=r"ship, vehicle, airplane.*ship, storage_tank.*model\.knowledge"):
        DglLabels(tiny_pipeline(knowledge="synthetic"), SETTINGS, data.labels)
