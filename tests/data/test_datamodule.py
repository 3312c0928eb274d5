import pickle
import shutil
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from layouts import SAMPLES, box_mask, write_refsegrs, write_rrsis_d
from s4eca.data import RefSegRSDataModule, RRSISDDataModule, SyntheticDataModule
from s4eca.data.augmentation.transforms import Augmentation
from s4eca.data.references import Batch
from s4eca.errors import S4ecaError

pytestmark = pytest.mark.filterwarnings("ignore:.*are expected", "ignore:.*does not have many workers")


def module(root, tokenizer, **options):
    options = {"image_size": 16, "batch_size": 2, "num_workers": 0} | options
    return RRSISDDataModule(root=root, tokenizer=tokenizer, **options)


def test_train_batches(tmp_path, tokenizer):
    data = module(write_rrsis_d(tmp_path, train=5), tokenizer, max_tokens=9)
    batches = list(data.train_dataloader())
    assert len(batches) == 2  # the fifth does not fill a batch
    batch = batches[0]
    assert isinstance(batch, Batch)
    assert batch.image.shape == (2, 3, 16, 16)
    assert batch.image.dtype == torch.uint8
    assert batch.mask.shape == (2, 16, 16)
    assert batch.mask.dtype == torch.bool
    assert batch.input_ids.shape == batch.attention_mask.shape == (2, 9)
    assert batch.original_masks == []
    assert batch.ids == [data.references("train")[int(index)].id for index in batch.index]


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_sees_every_reference_once_in_order(tmp_path, tokenizer, split):
    data = module(write_rrsis_d(tmp_path, val=5, test=5), tokenizer, eval_batch_size=3)
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    for _ in range(2):
        batches = list(loader)
        assert [len(batch) for batch in batches] == [3, 2]
        assert torch.cat([batch.index for batch in batches]).tolist() == [0, 1, 2, 3, 4]
        ids = [id for batch in batches for id in batch.ids]
        masks = [mask for batch in batches for mask in batch.original_masks]
        for id, mask in zip(ids, masks, strict=True):
            assert np.array_equal(mask.numpy(), box_mask(int(id)))


def test_workers_change_nothing(tmp_path, tokenizer):
    write_rrsis_d(tmp_path, train=12)
    augmentation = Augmentation(brightness=0.2, noise=0.1)
    results = []
    for workers in (0, 2):
        data = module(tmp_path, tokenizer, num_workers=workers, augmentation=augmentation, seed=3)
        loader = data.train_dataloader()
        images = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            images += [batch.image for batch in loader]
        results.append(torch.cat(images))
    assert torch.equal(results[0], results[1])


def test_seed_and_epoch_change_the_order(tmp_path, tokenizer):
    write_rrsis_d(tmp_path, train=12)

    def ids(seed, epoch):
        loader = module(tmp_path, tokenizer, seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [id for batch in loader for id in batch.ids]

    assert ids(0, 0) == ids(0, 0)
    assert len({tuple(ids(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_iterating_leaves_the_global_random_state_alone(tmp_path, tokenizer, workers):
    data = module(write_rrsis_d(tmp_path), tokenizer, num_workers=workers, augmentation=Augmentation(noise=0.1))
    torch.manual_seed(11)
    np.random.seed(11)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for _ in range(2):
            list(loader)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_augmentation_is_for_training_alone(tmp_path, tokenizer):
    data = module(write_rrsis_d(tmp_path), tokenizer, augmentation=Augmentation(brightness=0.3))
    plain = module(tmp_path, tokenizer)
    assert data.dataset("train").augmentation is not None
    assert not torch.equal(data.dataset("train")[0].image, plain.dataset("train")[0].image)
    assert torch.equal(data.dataset("val")[0].image, plain.dataset("val")[0].image)
    assert module(tmp_path, tokenizer, augmentation=Augmentation()).dataset("train").augmentation is None


def test_cache(tmp_path, tokenizer, capsys):
    root = write_rrsis_d(tmp_path / "data", train=4, val=2, test=2)
    plain = module(root, tokenizer)
    for there in (0, 6):
        data = module(root, tokenizer, cache=tmp_path / "cache", augmentation=Augmentation(noise=0.1))
        data.setup("fit")
        printed = capsys.readouterr().out
        assert printed.startswith(
            f"cache {tmp_path / 'cache' / 'samples'}: {there} of 6 samples (train, val) are there"
        )
        # 16 x 16 in three colours and a bit each: one block of 4 KiB
        assert ("; the others will take 24.0 KiB, " in printed) == (there == 0)
        data.train_dataloader()
        assert capsys.readouterr().out == ""
        found, expected = (list(source.val_dataloader()) for source in (data, plain))
        assert torch.equal(found[0].image, expected[0].image)
        assert torch.equal(found[0].original_masks[1], expected[0].original_masks[1])
        list(data.train_dataloader())
    data.test_dataloader()
    assert "6 of 8 samples (train, val, test)" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_changes_no_batch(tmp_path, tokenizer, workers):
    root = write_rrsis_d(tmp_path / "data", train=8)
    options = {"num_workers": workers, "augmentation": Augmentation(noise=0.1)}
    plain = module(root, tokenizer, **options).train_dataloader()
    cached = module(root, tokenizer, cache=str(tmp_path / "cache"), **options).train_dataloader()
    for epoch in range(2):
        for loader in (plain, cached):
            loader.sampler.set_epoch(epoch)
        for found, expected in zip(cached, plain, strict=True):
            assert found.ids == expected.ids
            assert torch.equal(found.image, expected.image)
            assert torch.equal(found.mask, expected.mask)


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_of_keyed_splits_carry_keys(tmp_path, tokenizer, workers):
    data = module(write_rrsis_d(tmp_path), tokenizer, num_workers=workers)
    data.keyed = ("train", "val")
    for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        found = {id: key for batch in loader for id, key in zip(batch.ids, batch.image_keys, strict=True)}
        dataset = data.dataset(split)
        wanted = {row.id: dataset.image_key(row) for row in data.references(split)}
        assert found == {id: wanted[id] for id in found}
        assert None not in found.values()
    assert {key for batch in data.test_dataloader() for key in batch.image_keys} == {None}


def test_word_ids_are_those_of_the_batches(tmp_path, tokenizer):
    data = module(write_rrsis_d(tmp_path, train=4), tokenizer, max_tokens=5)
    data.replace("train", [replace(row, expression=f"the ship {5 * 'left '}") for row in data.references("train")])
    batches = [*data.train_dataloader(), *data.val_dataloader()]
    in_batches = {tuple(row) for batch in batches for row in batch.word_ids}
    found = data.word_ids(("train", "val"))
    assert sorted(found) == sorted(map(list, in_batches))
    assert max(map(len, found)) == 5


def test_a_full_disk_is_an_error_before_training(tmp_path, tokenizer, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    data = module(write_rrsis_d(tmp_path / "data"), tokenizer, cache=tmp_path / "cache")
    with pytest.raises(S4ecaError, match=r"needs 24\.0 KiB for 6 more .* has 4\.9 KiB free.*data\.cache=null"):
        data.setup("fit")


def test_only_one_process_speaks_of_the_cache(tmp_path, tokenizer, capsys):
    data = module(write_rrsis_d(tmp_path / "data"), tokenizer, cache=tmp_path / "cache")
    data.trainer = SimpleNamespace(world_size=2, global_rank=1)
    data.train_dataloader()
    assert capsys.readouterr().out == ""


def test_resize_option_reaches_the_images(tmp_path, tokenizer):
    data = module(write_rrsis_d(tmp_path), tokenizer)
    sample = data.dataset("val")[0]
    with Image.open(data.references("val")[0].image) as image:
        expected = np.array(image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), expected)
    fast = module(tmp_path, tokenizer, resize="torch").dataset("val")[0]
    assert (fast.image.int() - sample.image.int()).abs().max() <= 1


def test_tokenizer_may_come_later(tmp_path, tokenizer):
    data = module(write_rrsis_d(tmp_path), None)
    data.setup("fit")
    for loader in (data.train_dataloader, data.val_dataloader, data.test_dataloader):
        with pytest.raises(S4ecaError, match=r"no tokenizer.*datamodule\.tokenizer"):
            loader()
    data.tokenizer = tokenizer
    assert len(next(iter(data.train_dataloader()))) == 2


def test_truncated_expressions_are_counted_once_per_split(tmp_path, tokenizer):
    # "The ship number 101 on the left" is 3 words, 3 digits, 3 words and two special tokens
    data = module(write_rrsis_d(tmp_path), tokenizer, max_tokens=10)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        data.setup()
        data.train_dataloader()
        data.val_dataloader()
    messages = [str(item.message) for item in seen if "lose their end" in str(item.message)]
    assert len(messages) == 3
    assert messages[0].startswith(
        "4 of 4 expressions of the train split are longer than 10 tokens (the longest has 11)"
    )


def test_long_enough_rows_are_silent(tmp_path, tokenizer):
    data = module(write_rrsis_d(tmp_path), tokenizer, max_tokens=11)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*lose their end")
        data.setup()


def test_defaults_of_the_datasets(tmp_path):
    assert RRSISDDataModule(root=tmp_path).max_tokens == 22
    assert RefSegRSDataModule(root=tmp_path).max_tokens == 20
    assert RRSISDDataModule(root=tmp_path).image_size == 480
    assert [kind.name for kind in (RRSISDDataModule, RefSegRSDataModule, SyntheticDataModule)] == [
        "rrsis_d",
        "refsegrs",
        "synthetic",
    ]


def test_setup_reads_what_a_stage_needs(tmp_path):
    root = write_rrsis_d(tmp_path, test=0)
    data = RRSISDDataModule(root=root)
    data.setup("fit")
    data.setup("validate")
    with pytest.raises(S4ecaError, match="test split"):
        data.setup("test")


def test_train_split_smaller_than_a_batch(tmp_path, tokenizer):
    data = module(write_rrsis_d(tmp_path, train=3), tokenizer, batch_size=4)
    with pytest.raises(S4ecaError, match=r"3 references.*one batch of 4.*data\.batch_size"):
        data.train_dataloader()


@pytest.mark.parametrize(
    "option",
    [
        {"image_size": 0},
        {"batch_size": 0},
        {"eval_batch_size": 0},
        {"num_workers": -1},
        {"max_tokens": 2},
        {"seed": -1},
    ],
)
def test_numbers_out_of_range(tmp_path, option):
    with pytest.raises(S4ecaError, match=f"data.{next(iter(option))}=.*too small"):
        RRSISDDataModule(root=tmp_path, **option)


def test_unknown_resizing_and_split(tmp_path):
    with pytest.raises(S4ecaError, match=r"no resizing 'cv2'.*pil, torch"):
        RRSISDDataModule(root=tmp_path, resize="cv2")
    with pytest.raises(S4ecaError, match="no split 'dev'"):
        RRSISDDataModule(root=tmp_path).references("dev")


def test_strict_counts(tmp_path):
    with pytest.raises(S4ecaError, match="12,181"):
        RRSISDDataModule(root=write_rrsis_d(tmp_path / "d"), strict_counts=True).setup("fit")
    with pytest.raises(S4ecaError, match="2,172"):
        RefSegRSDataModule(root=write_refsegrs(tmp_path / "r"), strict_counts=True).setup("fit")


def test_refsegrs(tmp_path, tokenizer):
    data = RefSegRSDataModule(root=write_refsegrs(tmp_path), tokenizer=tokenizer, image_size=16, batch_size=2)
    batch = next(iter(data.test_dataloader()))
    assert batch.ids == ["47", "48"]
    assert batch.categories == ["vehicle", "vehicle"]
    assert np.array_equal(batch.original_masks[0].numpy(), box_mask(47))


def test_fingerprint(tmp_path):
    def change_mask(_, instances):
        rows = instances["annotations"]
        rows[-1]["segmentation"] = rows[0]["segmentation"]

    def change_words(refs, _):
        refs[0]["sentences"][0]["raw"] += "s"

    base = RRSISDDataModule(root=write_rrsis_d(tmp_path / "a")).fingerprint()
    assert {split: value["count"] for split, value in base.items()} == {"train": 4, "val": 2, "test": 2}
    assert RRSISDDataModule(root=write_rrsis_d(tmp_path / "b")).fingerprint() == base
    masks = RRSISDDataModule(root=write_rrsis_d(tmp_path / "c", edit=change_mask)).fingerprint()
    assert masks["train"] == base["train"]
    assert masks["test"] != base["test"]
    words = RRSISDDataModule(root=write_rrsis_d(tmp_path / "d", edit=change_words)).fingerprint()
    assert words["train"] != base["train"]
    assert words["val"] == base["val"]
    assert RRSISDDataModule(root=tmp_path / "a").fingerprint(("val",)) == {"val": base["val"]}


def test_synthetic_is_written_where_missing_and_read_like_the_real_thing(tmp_path, tokenizer):
    options = {"root": tmp_path / "syn", "train": 3, "val": 2, "test": 1, "scene_size": 64, "num_workers": 0}
    data = SyntheticDataModule(tokenizer=tokenizer, image_size=32, batch_size=2, **options)
    with pytest.raises(S4ecaError, match=r"no synthetic data.*prepare_data"):
        data.references("train")
    data.prepare_data()
    stamp = (tmp_path / "syn/rrsisd/instances.json").stat().st_mtime_ns
    data.prepare_data()
    assert (tmp_path / "syn/rrsisd/instances.json").stat().st_mtime_ns == stamp
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*are expected")
        assert [len(data.references(split)) for split in ("train", "val", "test")] == [3, 2, 1]
    assert next(iter(data.val_dataloader())).original_sizes == [(64, 64), (64, 64)]
    with pytest.raises(S4ecaError, match=r"train=3 instead of 4"):
        SyntheticDataModule(**(options | {"train": 4})).prepare_data()
    with pytest.raises(S4ecaError, match=r"seed=0 instead of 5.*data\.root"):
        SyntheticDataModule(**options, scene_seed=5).prepare_data()
    with pytest.raises(S4ecaError, match=r"size=64 instead of 80"):
        SyntheticDataModule(**(options | {"scene_size": 80})).references("val")


def test_synthetic_in_the_other_layout(tmp_path):
    data = SyntheticDataModule(root=tmp_path / "s", layout="refsegrs", train=1, val=1, test=1, scene_size=64)
    data.prepare_data()
    assert data.references("val")[0].image.suffix == ".tif"


def test_processes_share_the_data(tmp_path, tokenizer):
    """In training the same number of batches each, in evaluation every reference exactly once."""
    root = write_rrsis_d(tmp_path, train=11, val=5)
    train, val = [], []
    for rank in range(2):
        data = module(root, tokenizer)
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank)
        train.append([id for batch in data.train_dataloader() for id in batch.ids])
        val.append([id for batch in data.val_dataloader() for id in batch.ids])
    assert [len(ids) for ids in train] == [4, 4]
    assert not set(train[0]) & set(train[1])
    assert val == [["134", "137", "146"], ["140", "143"]], "in whole batches of two"


def test_dataset_and_collate_survive_a_spawned_worker(tmp_path, tokenizer):
    data = module(write_rrsis_d(tmp_path), tokenizer, augmentation=Augmentation(noise=0.1))
    loader = data.train_dataloader()
    dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    first, second = (turn([source[0]]) for turn, source in ((collate, dataset), (loader.collate_fn, loader.dataset)))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.input_ids, second.input_ids)


@pytest.mark.parametrize(
    ("kind", "folder", "sizes"),
    [(RRSISDDataModule, "rrsisd_mini", (31, 8, 9)), (RefSegRSDataModule, "refsegrs_mini", (12, 3, 3))],
)
def test_the_real_samples_load(tokenizer, kind, folder, sizes):
    root = SAMPLES / folder
    if not root.is_dir():
        pytest.skip(f"{folder} is not in ../shared/data")
    data = kind(root=root, tokenizer=tokenizer, image_size=32, max_tokens=40, batch_size=4, num_workers=0)
    for split, size in zip(("train", "val", "test"), sizes, strict=True):
        assert len(data.references(split)) == size
    assert len(list(data.train_dataloader())) == sizes[0] // 4
    for loader, size in ((data.val_dataloader(), sizes[1]), (data.test_dataloader(), sizes[2])):
        masks = [mask for batch in loader for mask in batch.original_masks]
        shapes = [shape for batch in loader for shape in batch.original_sizes]
        assert len(masks) == size
        assert [tuple(mask.shape) for mask in masks] == shapes


class Recorder(LightningModule):
    """Learns nothing and writes down which references it saw in which epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, list[str]]] = []

    def training_step(self, batch, _):
        self.seen.append((self.current_epoch, batch.ids))
        return self.weight.sum() + batch.image.float().mean() * 0

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(root, tokenizer, folder, workers, epochs, checkpoint=None, **options):
    model = Recorder()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model, datamodule=module(root, tokenizer, num_workers=workers, seed=5), ckpt_path=checkpoint)
    return model.seen


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore")
def test_lightning_resumes_at_the_next_batch(tmp_path, tokenizer, workers):
    """Saved after every batch (and after every validation), resumed from each: nothing is skipped or repeated."""
    root = write_rrsis_d(tmp_path / "data", train=9)  # four batches and one sample left over
    saved = ModelCheckpoint(tmp_path / "step", "{step}", every_n_train_steps=1, save_top_k=-1)
    ended = ModelCheckpoint(tmp_path / "epoch", "{epoch}", monitor=None, save_top_k=-1)
    whole = train(root, tokenizer, tmp_path, workers, epochs=3, callbacks=[saved, ended])
    assert [epoch for epoch, _ in whole] == [0] * 4 + [1] * 4 + [2] * 4
    assert len({str(ids) for _, ids in whole}) > 6
    assert torch.load(tmp_path / "step" / "step=3.ckpt", weights_only=True)["loops"]["fit_loop"]["state_dict"]
    steps = (1, 3, 4, 6, 8, 11) if workers == 0 else (3, 4, 6)
    for step in steps:
        rest = train(root, tokenizer, tmp_path, workers, 3, tmp_path / "step" / f"step={step}.ckpt")
        assert rest == whole[step:], step
    for epoch in (0, 1):
        rest = train(root, tokenizer, tmp_path, workers, 3, tmp_path / "epoch" / f"epoch={epoch}.ckpt")
        assert rest == whole[4 * (epoch + 1) :], epoch


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore")
def test_lightning_resumes_with_a_limit_and_other_workers(tmp_path, tokenizer, workers):
    """With limit_train_batches an epoch ends inside the order; the next one starts at its own beginning."""
    root = write_rrsis_d(tmp_path / "data", train=9)
    saved = ModelCheckpoint(tmp_path / "step", "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = train(root, tokenizer, tmp_path, workers, 3, callbacks=[saved], limit_train_batches=3)
    for step in (1, 3, 5):
        checkpoint = tmp_path / "step" / f"step={step}.ckpt"
        rest = train(root, tokenizer, tmp_path, 2 - workers, 3, checkpoint, limit_train_batches=3)
        assert rest == whole[step:], step


@pytest.mark.filterwarnings("ignore")
def test_lightning_overfits_a_few_batches(tmp_path, tokenizer):
    """It replaces the sampler by a sequential one then; the dataset takes plain indices too."""
    root = write_rrsis_d(tmp_path / "data", train=8)
    seen = train(root, tokenizer, tmp_path, 0, epochs=2, overfit_batches=2, enable_checkpointing=False)
    assert [ids for _, ids in seen] == [["101", "104"], ["107", "110"]] * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="pages are locked for a GPU")
def test_pinning_without_a_gpu_is_one_warning(tmp_path, tokenizer):
    write_rrsis_d(tmp_path, train=4)
    with pytest.warns(UserWarning, match=r"data\.pin_memory=true does nothing here"):
        data = module(tmp_path, tokenizer, pin_memory=True)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert [len(list(data.train_dataloader())) for _ in range(2)] == [2, 2]
        assert [len(batch) for batch in data.val_dataloader()] == [2]
    assert not [warning.message for warning in seen if "pinned" in str(warning.message)]


@pytest.mark.gpu
def test_pinned_batches_travel_while_the_gpu_works(tmp_path, tokenizer):
    data = module(write_rrsis_d(tmp_path, train=4), tokenizer, pin_memory=True)
    batch = next(iter(data.train_dataloader()))
    assert batch.image.is_pinned()
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved = data.transfer_batch_to_device(batch, torch.device("cuda"), 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert moved.image.is_cuda
    assert torch.equal(moved.image.cpu(), batch.image)


def test_waiting_counts_loading_and_handing_over(tmp_path, tokenizer, monkeypatch):
    data = module(write_rrsis_d(tmp_path, train=4), tokenizer)
    assert data.waited == 0
    ticks = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    batches = list(data.train_dataloader())
    assert data.waited == 3, "two batches, and being told that there is none left, a tick each"
    moved = data.transfer_batch_to_device(batches[0], torch.device("cpu"), 0)
    assert data.waited == 4
    assert moved.ids == batches[0].ids
