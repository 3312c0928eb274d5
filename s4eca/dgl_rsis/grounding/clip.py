"""Grad-CAM on CLIP's image-text similarity."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s4eca.dgl_rsis.base import Grounding
from s4eca.dgl_rsis.grounding.inputs import (
    check_sides,
    check_template,
    merge_sides,
    prepare,
    tokenise,
)
from s4eca.dgl_rsis.models import Clip
from s4eca.dgl_rsis.parts import Maps, Phrase, View
from s4eca.errors import S4ecaError


class ClipGrounding(Grounding):
    """Reads off CLIP which patches make the image similar to a text.

    Grad-CAM (Selvaraju et al., ICCV 2017) with the patches at the first norm of the last block as its features, the
    place that CLIP-ES (Lin et al., CVPR 2023) uses: a channel's weight is the mean over the patches of the cosine's
    gradient, the map is the ReLU of the weighted sum. CLIP has no map for a word within a text, so that every map is
    that of a text of its own: the head noun for `local`, the modifiers in their order for `context`, and the expression
    for `whole`. There is no mean over words either, and `average` is `whole`. `score` is the cosine of the whole image
    and the expression. An alternative to BLIP of our own choosing; the paper's body was not available.

    Everything before the last block runs once per image, without a gradient. All is done in fp32, whatever autocast
    says, and works within `torch.no_grad` and `torch.inference_mode`.

    Args:
        clip: the model, frozen.
        template: of the prompt, `{}` stands for the text.
        input_sides: the image is read at each of these sides and the maps are averaged (see `merge_sides`); position
            embeddings are interpolated where it is not the model's own, which None stands for.
        batch_size: texts that go through the last block together; results do not depend on it.

    Raises:
        S4ecaError: a setting that this model cannot have.
    """

    def __init__(
        self,
        clip: Clip,
        template: str = "a satellite image of {}",
        input_sides: Sequence[int] | None = None,
        batch_size: int = 16,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise S4ecaError(f"grounding.batch_size={batch_size} must be at least 1.")
        check_template(template)
        self.input_sides = check_sides(input_sides, clip.image_size, clip.model.config.vision_config.patch_size)
        self.clip = clip
        self.tokenizer, self.max_tokens = clip.tokenizer, clip.model.config.text_config.max_position_embeddings
        self.template, self.batch_size = template, batch_size

    def identity(self) -> dict[str, Any]:
        """Returns the settings, and what the model is."""
        return {
            "grounding": "clip",
            "model": self.clip.identity(),
            "template": self.template,
            "input_sides": list(self.input_sides),
        }

    def maps(self, view: View, phrases: Sequence[Phrase]) -> list[Maps]:
        """Returns the maps of each phrase, on as many cells as the largest input side has patches."""
        if not phrases:
            return []
        device = self.clip.model.visual_projection.weight.device
        wanted = [(_join(phrase, phrase.local), _join(phrase, phrase.context), phrase.text) for phrase in phrases]
        texts = list(dict.fromkeys(text for row in wanted for text in row if text is not None))
        # tensors made in inference mode could not be saved for a gradient
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
            features = self._encode_texts(texts, device)
            per_side = [
                self._text_maps(self._before_last_block(view.image, side, device), features)
                for side in self.input_sides
            ]
        place = {text: position for position, text in enumerate(texts)}
        result = []
        for local, context, whole in wanted:
            sides = []
            for maps, cosines in per_side:
                missing = np.zeros(maps.shape[1:], np.float32)
                sentence = maps[place[whole]]
                sides.append(
                    Maps(
                        local=missing if local is None else maps[place[local]],
                        context=missing if context is None else maps[place[context]],
                        whole=sentence,
                        average=sentence,
                        score=float(cosines[place[whole]]),
                    )
                )
            result.append(merge_sides(sides))
        return result

    def _encode_texts(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Returns features (T, D) of unit length."""
        rows = tokenise(self.tokenizer, self.template, texts, self.max_tokens)
        parts = [
            self.clip.model.get_text_features(
                input_ids=rows.ids[start : start + self.batch_size].to(device),
                attention_mask=rows.mask[start : start + self.batch_size].to(device),
            ).pooler_output
            for start in range(0, len(texts), self.batch_size)
        ]
        return F.normalize(torch.cat(parts), dim=-1)

    def _before_last_block(self, image: np.ndarray, side: int, device: torch.device) -> Tensor:
        """Returns the class token and the patches (1, 1 + n·n, D) as they enter the last block."""
        vision = self.clip.model.vision_model
        pixels = prepare(image, side, self.clip.mean, self.clip.std).to(device)
        hidden = vision.pre_layrnorm(vision.embeddings(pixels, interpolate_pos_encoding=True))
        for block in vision.encoder.layers[:-1]:
            hidden = block(hidden, attention_mask=None)
        return hidden

    def _text_maps(self, hidden: Tensor, texts: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Returns the map of each text (T, n, n), and its cosine with the image (T,)."""
        block: Any = self.clip.model.vision_model.encoder.layers[-1]
        normed = block.layer_norm1(hidden)
        side = round((hidden.shape[1] - 1) ** 0.5)
        maps, cosines = [], []
        for part in texts.split(self.batch_size):
            with torch.enable_grad():
                features = normed.repeat(len(part), 1, 1).requires_grad_()  # a copy for each text
                attended, _ = block.self_attn(features, attention_mask=None)
                image = hidden[:, 0] + attended[:, 0]
                image = image + block.mlp(block.layer_norm2(image))
                image = self.clip.model.visual_projection(self.clip.model.vision_model.post_layernorm(image))
                cosine = (F.normalize(image, dim=-1) * part).sum(-1)
                (gradient,) = torch.autograd.grad(cosine.sum(), features)
            weights = gradient[:, 1:].mean(1, keepdim=True)
            found = (weights * normed[:, 1:]).sum(-1).relu()
            maps.append(found.reshape(-1, side, side).cpu().numpy())
            cosines.append(cosine.detach().cpu().numpy())
        return np.concatenate(maps), np.concatenate(cosines)


def _join(phrase: Phrase, positions: Sequence[int]) -> str | None:
    """Returns some words of a phrase as a text, None where there are none."""
    return " ".join(phrase.words[position].text for position in positions) if positions else None
