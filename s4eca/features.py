"""What the frozen towers gave, kept on disk for a method at their side: from the second epoch on they are not run.

An image has one entry with the states of its stages, an expression one with the states of its words. Both are encoded
one at a time, words without padding, outside autocast: matrix kernels are chosen by shape and differ in last bits
(up to 6e-6 in the last stage of a tiny Swin V2 on a CPU), so only then an entry depends on nothing but its key, and a
resumed run goes on with the same bits whatever is there already. That costs speed on a GPU, once per image.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import timm
import torch
import transformers
from lightning import Trainer
from torch import Tensor

from s4eca.cache import DiskCache, digest, readable
from s4eca.data.augmentation.turns import Turn
from s4eca.data.datamodule import ReferringDataModule
from s4eca.data.references import Batch
from s4eca.errors import S4ecaError
from s4eca.frozen_dtype import holds_bf16
from s4eca.runner import Encoded, Runner
from s4eca.towers.base import Step, Tower, VisionTower, from_grid, to_grid
from s4eca.weights import hash_weights

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

_CONTENT_VERSION = 1  # of entries; raise it when a tower's walk gives other values
_SETTING = "model.feature_cache"
_THREADS = 8  # reading a file and its checksum leave the interpreter's lock alone
# a cast tower would give other features than those of the weights that its hash stands for
_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

Item = TypeVar("Item")


def open_features(folder: str | Path | None, runner: Runner, dtype: str = "bf16") -> "FeatureCache | None":
    """Returns the cache in a folder, None where there is none.

    Raises:
        S4ecaError: an unknown `dtype`, a method inside the towers, whose features change in every step, or towers held
            in bf16, where features are encoded in fp32.
    """
    if dtype not in DTYPES:
        raise S4ecaError(f"model.feature_dtype={dtype} is none of {', '.join(DTYPES)}.")
    if folder is None:
        return None
    if runner.scope.placement != "side":
        raise S4ecaError(
            f"{_SETTING} keeps what frozen towers give, and with model.segmenter.placement={runner.scope.placement} it"
            f" changes as the method learns; set model.segmenter.placement=side or {_SETTING}=null."
        )
    if holds_bf16(runner.text) or holds_bf16(runner.vision):
        raise S4ecaError(
            f"{_SETTING} encodes with towers in fp32; set model.segmenter.tower_dtype=fp32, which costs memory and no "
            "time once the features are kept."
        )
    return FeatureCache(folder, runner, dtype)


class FeatureCache:
    """Gives `Encoded` for a batch, from disk where it is there, and from the towers where not.

    In fp32 a step equals, bit for bit, one whose samples are encoded one at a time; batches as the towers see them
    without a cache differ by the kernels' last bits, less than 1e-5 in the logits of tiny towers. In bf16 every feature
    is off by at most 2^-8 of itself. A logit moves by what independent roundings of that size give to first order, at
    most 5 * 2^-8 / sqrt(3) * sqrt(sum (d logit / d feature * feature)^2): on tiny random networks up to 1 % of the
    logits' standard deviation with FiLM and 11 % with PWAM, whose instance norms see four places in the last stage.
    A feature that has just been encoded is rounded like one that is read.

    Where samples were turned (`Augmentation.turn_features`), the towers see the upright image and the grids are turned.

    The key of an image holds its `image_key`, that of an expression its token ids without padding. Both hold the
    tower's weights, constants and settings, which layers are read (text), the dtype, the kind of device, PyTorch's
    precision of fp32 products, and the versions of torch, timm and transformers.

    Args:
        folder: of the cache; several runs and processes may share it.
        runner: of the network.
        dtype: `bf16` or `fp32`, of what is on disk; features enter the network in fp32, under autocast too.

    Attributes:
        has_encoded: whether the last batch had something in it that was not on disk yet.
    """

    def __init__(self, folder: str | Path, runner: Runner, dtype: str = "bf16") -> None:
        self.runner, self.dtype = runner, DTYPES[dtype]
        self.stages = DiskCache(folder, "stages", _SETTING)
        self.words = DiskCache(folder, "words", _SETTING)
        last = len(runner.text.steps) - 1
        self.layers = sorted({*runner.method.side_layers(runner.text), last})
        self.has_encoded = False
        self._ends = [step for step in runner.vision.steps if step.ends_stage]
        self._vision = _identity(runner.vision, dtype)
        # transformers keeps its attention kernel as a string, where no layer's settings show it
        kernel = getattr(getattr(runner.text.model, "config", None), "_attn_implementation", None)
        self._text = _identity(runner.text, dtype, layers=self.layers, attention=kernel)

    def image_entry(self, image_key: str, device: str) -> str:
        """Returns the key of an image's stages, encoded on `cpu` or `cuda`."""
        products = torch.get_float32_matmul_precision()
        return digest(tower=self._vision, image=image_key, device=device, products=products)

    def words_entry(self, word_ids: Sequence[int], device: str) -> str:
        """Returns the key of an expression's words."""
        products = torch.get_float32_matmul_precision()
        return digest(tower=self._text, words=list(word_ids), device=device, products=products)

    def encode(self, batch: Batch) -> Encoded | None:
        """Returns the features of a batch on its device in fp32; None where a sample has no `image_key`.

        Words at padded positions are zero: whatever reads words masks them.
        """
        keys = [key for key in batch.image_keys if key is not None]
        self.has_encoded = len(keys) < len(batch)
        if self.has_encoded:
            return None
        device = batch.image.device
        images = [self.image_entry(key, device.type) for key in keys]
        expressions = [self.words_entry(ids, device.type) for ids in batch.word_ids]
        rows = {entry: row for row, entry in enumerate(images)}
        turns = batch.turns or [Turn.IDENTITY] * len(batch)
        ids = dict(zip(expressions, batch.word_ids, strict=True))
        with ThreadPoolExecutor(_THREADS) as pool, torch.no_grad(), torch.autocast(device.type, enabled=False):
            stages = self._gather(
                pool, self.stages, rows, lambda row: self._encode_upright(batch.image[row : row + 1], turns[row])
            )
            words = self._gather(pool, self.words, ids, lambda row: self._encode_words(row, device))
            length = batch.input_ids.shape[1]
            return Encoded(
                [_padded(states, length).to(device).float() for states in _by_layer(words, expressions)],
                [
                    torch.stack([_turned(state, end, turn) for state, turn in zip(states, turns, strict=True)])
                    .to(device)
                    .float()
                    for states, end in zip(_by_layer(stages, images), self._ends, strict=True)
                ],
            )

    def image_example(self) -> dict[str, np.ndarray]:
        """Returns an entry as large as that of any image, without running the tower."""
        return self._pack([torch.zeros(1, *shape) for shape in stage_shapes(self.runner.vision)])

    def words_example(self, length: int) -> dict[str, np.ndarray]:
        """Returns an entry as large as that of any expression of `length` tokens."""
        return self._pack([torch.zeros(1, length, self.runner.text.steps[layer].width) for layer in self.layers])

    def _encode_upright(self, image: Tensor, turn: Turn) -> list[Tensor]:
        return self.runner.encode_image(turn.inverse.pixels(image))

    def _encode_words(self, word_ids: Sequence[int], device: torch.device) -> list[Tensor]:
        row = torch.tensor([word_ids], device=device)
        return self.runner.encode_words(row, torch.ones_like(row))

    def _gather(
        self,
        pool: ThreadPoolExecutor,
        cache: DiskCache,
        wanted: Mapping[str, Item],
        encode: Callable[[Item], list[Tensor]],
    ) -> dict[str, list[Tensor]]:
        """Reads entries side by side, and encodes those that are missing one after the other."""
        found = dict(zip(wanted, pool.map(cache.get, wanted), strict=True))
        made = {entry: self._pack(encode(wanted[entry])) for entry, arrays in found.items() if arrays is None}
        self.has_encoded = self.has_encoded or bool(made)
        list(pool.map(cache.put, made, made.values()))
        return {entry: self._unpack(made[entry] if arrays is None else arrays) for entry, arrays in found.items()}

    def _pack(self, states: Sequence[Tensor]) -> dict[str, np.ndarray]:
        """Returns what an entry holds of states (1, …); NumPy has no bf16, so its bits go as whole numbers."""
        kept = [state[0].to(self.dtype).cpu().contiguous() for state in states]
        if self.dtype == torch.bfloat16:
            return {str(place): state.view(torch.int16).numpy().view(np.uint16) for place, state in enumerate(kept)}
        return {str(place): state.numpy() for place, state in enumerate(kept)}

    def _unpack(self, arrays: Mapping[str, np.ndarray]) -> list[Tensor]:
        ordered = [arrays[str(place)] for place in range(len(arrays))]
        if self.dtype == torch.bfloat16:
            return [torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) for array in ordered]
        return [torch.from_numpy(array) for array in ordered]


def stage_shapes(vision: VisionTower) -> list[tuple[int, ...]]:
    """Returns the shape of one image's state after each stage: (H, W, C), or (P + HW, C) of a plain transformer."""
    shapes: list[tuple[int, ...]] = []
    for step in vision.steps:
        if step.ends_stage:
            assert step.grid is not None
            rows, columns = step.grid
            tokens = (step.prefix + rows * columns, step.width)
            shapes.append(tokens if vision.takes_tokens else (rows, columns, step.width))
    return shapes


def check_cacheable(features: FeatureCache | None, data: ReferringDataModule, precision: Any) -> None:
    """Refuses a training whose features are others in every epoch, or are not those of towers in fp32.

    Raises:
        S4ecaError: an augmentation of more than the features' direction, features to be turned that are not kept, or a
            precision that casts the towers.
    """
    augmentation = data.augmentation
    turns = augmentation is not None and augmentation.turn_features
    if features is None:
        if turns:
            raise S4ecaError(
                f"data.augmentation.turn_features=true turns kept features; name a folder with {_SETTING}=FOLDER, or "
                "set augmentation=geometric, which encodes every turned image."
            )
        return
    if augmentation is not None and augmentation.active and not turns:
        raise S4ecaError(
            f"{_SETTING} keeps one set of features per image, and an augmentation makes another image in every epoch;"
            f" set augmentation=turned_features, which turns them, augmentation=none or {_SETTING}=null."
        )
    if precision not in _PRECISIONS:
        raise S4ecaError(
            f"{_SETTING} needs towers in fp32, and trainer.precision={precision} casts them; set"
            f" trainer.precision=bf16-mixed or {_SETTING}=null."
        )


def plan_features(features: FeatureCache | None, data: ReferringDataModule, trainer: Trainer) -> None:
    """Prepares a training with cached features: its samples get keys, and what the cache needs is printed and checked.

    Every image file of the train and val splits is read once for its hash. Call it before a loader is made; without a
    cache it does nothing.

    Raises:
        S4ecaError: an augmentation, a precision that casts the towers, a tokenizer that pads on the left, or a folder
            that cannot be written or whose disk has too little room.
    """
    check_cacheable(features, data, trainer.precision)
    if features is None:
        return
    if getattr(data.tokenizer, "padding_side", "right") != "right":
        raise S4ecaError(
            f"{_SETTING} needs padding behind the words, and this tokenizer pads in front of them; set its"
            f" padding_side to right or {_SETTING}=null."
        )
    data.keyed = ("train", "val")
    device = trainer.strategy.root_device.type
    keys = {dataset.image_key(row) for dataset in map(data.dataset, data.keyed) for row in dataset.references}
    images = {features.image_entry(key, device) for key in keys if key is not None}
    expressions: dict[int, set[str]] = {}
    for ids in data.word_ids(data.keyed):  # of every wording
        expressions.setdefault(len(ids), set()).add(features.words_entry(ids, device))
    image, longest = features.image_example(), max(expressions, default=0)
    plans = [features.stages.plan(images, image)]
    plans += [features.words.plan(entries, features.words_example(size)) for size, entries in expressions.items()]
    needed, free = sum(plan.needed for plan in plans), max(plan.free for plan in plans)
    if needed > free:  # each kind alone may have fitted
        raise S4ecaError(
            f"The feature cache in {features.stages.folder.parent} needs {readable(needed)} more and its disk has"
            f" {readable(free)} free: make room, choose another folder with {_SETTING}, or switch it off with"
            f" {_SETTING}=null."
        )
    if trainer.global_rank == 0:
        sizes = {size: len(entries) for size, entries in expressions.items()}
        words = sum(count * _nbytes(features.words_example(size)) for size, count in sizes.items())
        missing = plans[0].missing, sum(plan.missing for plan in plans[1:])
        total = len(images), sum(sizes.values())
        more = f"; the others will take {readable(needed)}, {readable(free)} are free" if any(missing) else ""
        print(
            f"feature cache {features.stages.folder.parent}: {total[0]:,} images, "
            f"{readable(total[0] * _nbytes(image))}, {total[0] - missing[0]:,} there already; {total[1]:,} expressions"
            f" of up to {longest} tokens, {readable(words)}, {total[1] - missing[1]:,} there already{more}",
            flush=True,
        )


def _identity(tower: Tower, dtype: str, **more: Any) -> str:
    """Returns a hash of all in a tower that its output depends on: weights, constants, settings of its layers."""
    settings = [
        [
            name,
            type(part).__name__,
            part.extra_repr(),
            # numbers alone: among the strings are paths, which may change without consequence
            {key: repr(value) for key, value in sorted(vars(part).items()) if key != "training" and _is_plain(value)},
        ]
        for name, part in tower.named_modules()
    ]
    return digest(
        content=_CONTENT_VERSION,
        libraries=[torch.__version__, timm.__version__, transformers.__version__],
        name=tower.base.name,
        weights=tower.base.sha256,
        buffers=hash_weights(dict(tower.named_buffers())),
        settings=settings,
        dtype=dtype,
        **more,
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _by_layer(read: Mapping[str, list[Tensor]], entries: Iterable[str]) -> list[tuple[Tensor, ...]]:
    """Returns, for each layer or stage, the states of all samples."""
    return list(zip(*(read[entry] for entry in entries), strict=True))


def _padded(states: Sequence[Tensor], length: int) -> Tensor:
    """Returns words (B, L, D) of states (L_i, D), zero where there are none."""
    padded = states[0].new_zeros(len(states), length, states[0].shape[-1])
    for row, state in zip(padded, states, strict=True):
        row[: len(state)] = state
    return padded


def _turned(state: Tensor, end: Step, turn: Turn) -> Tensor:
    """Turns the grid of one image's state, (H, W, C) or (P + HW, C), as its pixels were."""
    if turn is Turn.IDENTITY:
        return state
    front, grid = to_grid(state[None], end)
    return from_grid(front, turn.pixels(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))[0]


def _nbytes(arrays: Mapping[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays.values())
