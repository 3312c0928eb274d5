"""Regions and texts in the space of CLIP."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s4eca.dgl_rsis.base import RegionEncoder
from s4eca.dgl_rsis.crops import CROPS, crop_and_resize, crop_boxes
from s4eca.dgl_rsis.masked_clip import masked_features, patch_coverage, token_masked_features
from s4eca.dgl_rsis.models import Clip
from s4eca.dgl_rsis.parts import Proposals, View
from s4eca.errors import S4ecaError

GUIDANCE = {"crops": ("attention", "fill", "none"), "single_pass": ("attention", "tokens")}
"""By mode, how a feature can be guided by its mask."""


class ClipRegions(RegionEncoder):
    """CLIP, frozen, with features that are guided by masks (reconstruction of the local alignment of arXiv 2509.00598).

    A region's feature is `norm(beta * f_main + (1 - beta) * f_tight)`, both of unit length. `f_tight` is CLIP's own of
    the box of the mask, filled with the pixel mean outside the mask, the local feature of Global-Local CLIP (Yu et al.,
    CVPR 2023). `f_main` is made in one of two modes:

    - `crops`: from a crop with context around each mask;
    - `single_pass`: from one pass of the whole image, stretched to a square, whose blocks the masks share as long as
      they can: much cheaper, and coarse for small objects.

    None stands for the default where a setting acts; where it does not act, any other value is refused.

    Args:
        clip: the model.
        mode: `crops` or `single_pass`.
        guidance: `attention`: pooled by masked attention in the last block; `fill` (with `crops`): the crop is filled
            with the pixel mean outside the mask; `none` (with `crops`): the crop as it is; `tokens` (with
            `single_pass`): patch tokens are masked in the last blocks, as in GL-CLIP.
        crop: of `crops`: `adaptive` (default), `fixed` or `tight`; see `crop_boxes`.
        eps: of `attention`: weight of what is outside the mask, by default 0.1; 0 hides it.
        beta: weight of `f_main`, by default 0.7 in `crops` and 1 in `single_pass`; with 1, `f_tight` is not computed.
            It does not act where the two are the same, for `crop=tight` with `guidance=fill`.
        input_side: of `single_pass`: side of the image for CLIP, a multiple of its patch size; by default twice its own
            with `attention` (448 for ViT-B/16), its own with `tokens`. Positions are interpolated.
        block: of `tokens`: first block with masked tokens, counted from 0; by default the third from last, which is
            GL-CLIP's 9 of 12.
        rho0: of `adaptive` and `fixed` crops: context in parts of the box's longer side, by default 0.5.
        area0: of `adaptive` crops: box area in pixels at which the context is `rho0`, by default 1024.
        rho_min: of `adaptive` crops: least context, by default 0.1.
        rho_max: of `adaptive` crops: most context, by default 1.
        min_side: of `adaptive` and `fixed` crops: least side in pixels, by default 32.
        batch_size: crops, masked token sets or texts that go through CLIP together; it changes no result.

    Raises:
        S4ecaError: an unknown choice, a number out of range, or a setting that would have no effect.
    """

    def __init__(
        self,
        clip: Clip,
        mode: str = "crops",
        guidance: str = "attention",
        crop: str | None = None,
        eps: float | None = None,
        beta: float | None = None,
        input_side: int | None = None,
        block: int | None = None,
        rho0: float | None = None,
        area0: float | None = None,
        rho_min: float | None = None,
        rho_max: float | None = None,
        min_side: int | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        config = clip.model.config.vision_config
        self.clip, self.mode, self.guidance, self.batch_size = clip, mode, guidance, batch_size
        self.patch, self.tokenizer = config.patch_size, clip.tokenizer
        self.max_tokens = clip.model.config.text_config.max_position_embeddings
        _one_of("mode", mode, GUIDANCE)
        _one_of(f"guidance with model.regions.mode={mode}", guidance, GUIDANCE[mode])
        crops, by_mode, by_guidance = (
            mode == "crops",
            f"model.regions.mode={mode}",
            f"model.regions.guidance={guidance}",
        )
        self.crop = _acting("crop", crop, "adaptive", crops, by_mode)
        if crops:
            _one_of("crop", self.crop, CROPS)
        by_crop = f"model.regions.crop={self.crop}" if crops else by_mode
        same = (self.crop, guidance) == ("tight", "fill")
        side = clip.image_size * (2 if guidance == "attention" else 1)
        self.beta = _acting("beta", beta, 0.7 if crops else 1.0, not same, f"{by_crop} and {by_guidance}")
        self.eps = _acting("eps", eps, 0.1, guidance == "attention", by_guidance)
        self.input_side = _acting("input_side", input_side, side, not crops, by_mode)
        self.block = _acting("block", block, max(config.num_hidden_layers - 3, 0), guidance == "tokens", by_guidance)
        with_context, adaptive = self.crop in ("adaptive", "fixed"), self.crop == "adaptive"
        context = {
            "rho0": _acting("rho0", rho0, 0.5, with_context, by_crop),
            "area0": _acting("area0", area0, 1024.0, adaptive, by_crop),
            "rho_min": _acting("rho_min", rho_min, 0.1, adaptive, by_crop),
            "rho_max": _acting("rho_max", rho_max, 1.0, adaptive, by_crop),
            "min_side": _acting("min_side", min_side, 32, with_context, by_crop),
        }
        self.context = {name: value for name, value in context.items() if value is not None}
        _within("beta", self.beta, 0, 1, open_below=True)
        _within("eps", self.eps, 0, 1)
        _within("block", self.block, 0, config.num_hidden_layers - 1)
        if type(batch_size) is not int:
            raise S4ecaError(f"model.regions.batch_size={batch_size} is no whole number; give one from 1 up.")
        _within("batch_size", batch_size, 1)
        for name, value in self.context.items():
            _within(name, value, 0, open_below=name in ("area0", "min_side"))
        if adaptive and self.context["rho_min"] > self.context["rho_max"]:
            raise S4ecaError("model.regions.rho_min is larger than model.regions.rho_max; make it smaller.")
        for name, pixels in (("clip's image size", clip.image_size), ("model.regions.input_side", self.input_side)):
            if pixels is not None and (pixels < self.patch or pixels % self.patch):
                raise S4ecaError(f"{name}={pixels} is no multiple of clip's patch size; give one of {self.patch}.")

    def identity(self) -> dict[str, Any]:
        """Returns the settings that act, and what CLIP is: its weights and what they do not show."""
        settings = {name: getattr(self, name) for name in ("crop", "eps", "beta", "input_side", "block")} | self.context
        acting = {name: value for name, value in settings.items() if value is not None}
        return {
            "encoder": "clip_regions",
            "mode": self.mode,
            "guidance": self.guidance,
            **acting,
            "clip": self.clip.identity(),
        }

    def text_identity(self) -> dict[str, Any]:
        """Returns what CLIP is; the settings are of regions alone."""
        return self.clip.identity()

    @torch.no_grad()
    def encode_regions(self, view: View, proposals: Proposals) -> np.ndarray:
        """Returns features (K, D) float32 of unit length."""
        if not len(proposals):
            return np.zeros((0, self.clip.model.projection_dim), np.float32)
        device = self.clip.model.device
        with torch.autocast(device.type, enabled=False):
            image = torch.tensor(view.image, device=device).permute(2, 0, 1).float() / 255
            if self.mode == "single_pass":
                features = self._from_view(image, proposals)
            else:
                boxes = crop_boxes(proposals.boxes, proposals.size, self.crop, **self.context)
                features = self._from_crops(image, proposals, boxes, self.guidance)
            if self.beta is not None and self.beta < 1:
                tight = self._from_crops(image, proposals, proposals.boxes, "fill")
                features = F.normalize(self.beta * features + (1 - self.beta) * tight, dim=-1)
            return features.cpu().numpy()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns features (T, D) float32 of unit length; texts that are too long are cut, with a warning."""
        model = self.clip.model
        features = np.zeros((len(texts), model.projection_dim), np.float32)
        cut: list[str] = []
        for start in range(0, len(texts), self.batch_size):
            batch = list(texts[start : start + self.batch_size])
            tokens = self.tokenizer(
                batch,
                padding=True,
                padding_side="right",
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            )
            cut += [text for text, encoding in zip(batch, tokens.encodings, strict=True) if encoding.overflowing]
            with torch.autocast(model.device.type, enabled=False):
                # no mask: a token sees none after it, the padding is on the right, and the first end token is read
                pooled = model.get_text_features(input_ids=tokens.input_ids.to(model.device)).pooler_output
                features[start : start + len(batch)] = F.normalize(pooled, dim=-1).cpu().numpy()
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(texts)} texts are longer than CLIP's {self.max_tokens} tokens and are cut, the"
                f" first being {cut[0]!r}.",
                stacklevel=2,
            )
        return features

    def _from_crops(self, image: Tensor, proposals: Proposals, boxes: np.ndarray, guidance: str) -> Tensor:
        """Returns features (K, D) of boxes of an image (3, H, W), one crop for each."""
        side = self.clip.image_size
        features = []
        for places, masks in self._masks(proposals, image.device):
            filled = masks if guidance == "fill" else None
            pixels = self._normalise(crop_and_resize(image, boxes[places], side, filled, self.clip.mean))
            if guidance == "attention":
                cells = [
                    patch_coverage(mask[y0:y1, x0:x1], side // self.patch, side // self.patch)
                    for mask, (x0, y0, x1, y1) in zip(masks, boxes[places].tolist(), strict=True)
                ]
                features.append(masked_features(self.clip, pixels, torch.stack(cells)[:, None], self.eps)[:, 0])
            else:
                pooled = self.clip.model.get_image_features(pixel_values=pixels).pooler_output
                features.append(F.normalize(pooled, dim=-1))
        return torch.cat(features)

    def _from_view(self, image: Tensor, proposals: Proposals) -> Tensor:
        """Returns features (K, D) from one pass of an image (3, H, W)."""
        height, width = proposals.size
        pixels = self._normalise(crop_and_resize(image, np.array([[0, 0, width, height]]), self.input_side))
        cells = self.input_side // self.patch
        coverage = torch.stack(
            [patch_coverage(mask, cells, cells) for _, masks in self._masks(proposals, image.device) for mask in masks]
        )
        if self.guidance == "tokens":
            return token_masked_features(self.clip, pixels, coverage, self.block, self.batch_size)
        return masked_features(self.clip, pixels, coverage[None], self.eps)[0]

    def _masks(self, proposals: Proposals, device: torch.device) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Gives positions and masks (k, H, W), so many at a time that the crops of all are never held at once."""
        for start in range(0, len(proposals), self.batch_size):
            places = np.arange(start, min(start + self.batch_size, len(proposals)))
            yield places, torch.from_numpy(proposals.take(places).masks()).to(device)

    def _normalise(self, pixels: Tensor) -> Tensor:
        mean, std = (pixels.new_tensor(values).reshape(3, 1, 1) for values in (self.clip.mean, self.clip.std))
        return (pixels - mean) / std


def _acting(name: str, value: Any, default: Any, acts: bool, cause: str) -> Any:
    """Returns a setting, its default for None; None where it does not act."""
    if not acts and value is not None:
        raise S4ecaError(f"model.regions.{name}={value} has no effect with {cause}; leave it null.")
    return default if acts and value is None else value


def _one_of(name: str, value: Any, choices: Any) -> None:
    if value not in choices:
        raise S4ecaError(f"model.regions.{name} is one of {', '.join(choices)}, not {value}.")


def _within(name: str, value: float | None, low: float, high: float | None = None, open_below: bool = False) -> None:
    """Refuses a number outside [low, high], or (low, high] with `open_below`."""
    if value is None or (low <= value <= (value if high is None else high) and not (open_below and value == low)):
        return
    least = f"above {low}" if open_below else f"at least {low}"
    raise S4ecaError(f"model.regions.{name} is {least}{'' if high is None else f' and at most {high}'}, not {value}.")
