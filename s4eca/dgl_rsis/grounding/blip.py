"""Per-word Grad-CAM on the cross-attention of BLIP's image-text matching."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s4eca.dgl_rsis.base import Grounding
from s4eca.dgl_rsis.decoupling.tokens import subtokens
from s4eca.dgl_rsis.grounding.inputs import (
    check_sides,
    check_template,
    merge_sides,
    prepare,
    tokenise,
)
from s4eca.dgl_rsis.models import Blip
from s4eca.dgl_rsis.parts import Maps, Phrase, View
from s4eca.errors import S4ecaError


class BlipGrounding(Grounding):
    """Reads off BLIP where each word of an expression looks when the model matches it with the image.

    With A (heads, L, 1 + n·n) the cross-attention probabilities of one text layer and g the gradient of the match logit
    with respect to them, sub-token t has the map mean over heads of ReLU(g)·A, without the image's class token, as n
    rows of n cells. It is the Grad-CAM of ALBEF (Li et al., NeurIPS 2021) as LAVIS computes it for BLIP (Li et al.,
    ICML 2022). That DGL-RSIS uses BLIP, and this layer and template, is our reconstruction: its body was not available.

    The template's words belong to no map: `average` is the mean over the expression's own sub-tokens, articles and the
    like included. `whole` is the map of the first token, from which the match logit is read. `score` is that logit.

    The image is encoded once for all expressions, without a gradient. All is done in fp32, whatever autocast says, and
    works within `torch.no_grad` and `torch.inference_mode`.

    Args:
        blip: the model, frozen.
        layer: of the text encoder, counted from 0; LAVIS's notebook for this model has 7. The last one is refused: the
            match logit is read from its first token, and the gradient of all others is zero.
        template: of the prompt, `{}` stands for the expression.
        input_sides: the image is read at each of these sides and the maps are averaged (see `merge_sides`); position
            embeddings are interpolated where it is not the model's own, which None stands for.
        enc_token_id: put at the first place, where matching was trained with `[ENC]`: 30523 in Salesforce's weights.
            transformers leaves the tokenizer's `[CLS]` there, as does None.
        max_tokens: longest row of sub-tokens; BLIP's retrieval models were trained with 35.
        batch_size: expressions that go through the text encoder together; results do not depend on it.

    Raises:
        S4ecaError: a setting that this model cannot have.
    """

    def __init__(
        self,
        blip: Blip,
        layer: int = 7,
        template: str = "there is a {}",
        input_sides: Sequence[int] | None = None,
        enc_token_id: int | None = None,
        max_tokens: int = 35,
        batch_size: int = 16,
    ) -> None:
        super().__init__()
        text, vision = blip.model.config.text_config, blip.model.config.vision_config
        last = text.num_hidden_layers - 1
        if not 0 <= layer < last:
            raise S4ecaError(
                f"grounding.layer={layer} must be from 0 to {last - 1}: of this model's last text layer, {last}, only"
                " the first token acts on the match logit, and words would have no map."
            )
        if not 3 <= max_tokens <= text.max_position_embeddings:
            raise S4ecaError(f"grounding.max_tokens={max_tokens} must be from 3 to {text.max_position_embeddings}.")
        if enc_token_id is not None and not 0 <= enc_token_id < text.vocab_size:
            raise S4ecaError(
                f"grounding.enc_token_id={enc_token_id} is not among the {text.vocab_size} sub-tokens of these weights;"
                " give null for weights without [ENC]."
            )
        if batch_size < 1:
            raise S4ecaError(f"grounding.batch_size={batch_size} must be at least 1.")
        self.shift = check_template(template)
        self.input_sides = check_sides(input_sides, blip.image_size, vision.patch_size)
        self.blip = blip
        self.tokenizer, self.max_tokens = blip.tokenizer, max_tokens
        self.layer, self.template, self.enc_token_id, self.batch_size = layer, template, enc_token_id, batch_size

    def identity(self) -> dict[str, Any]:
        """Returns the settings, and what the model is."""
        return {
            "grounding": "blip",
            "model": self.blip.identity(),
            "layer": self.layer,
            "template": self.template,
            "input_sides": list(self.input_sides),
            "enc_token_id": self.enc_token_id,
            "max_tokens": self.max_tokens,
        }

    def maps(self, view: View, phrases: Sequence[Phrase]) -> list[Maps]:
        """Returns the maps of each phrase, on as many cells as the largest input side has patches."""
        if not phrases:
            return []
        device = self.blip.model.itm_head.weight.device
        # tensors made in inference mode could not be saved for a gradient
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
            images = [self._encode_image(view.image, side, device) for side in self.input_sides]
            rows = tokenise(self.tokenizer, self.template, [phrase.text for phrase in phrases], self.max_tokens)
            result: list[Maps] = []
            for start in range(0, len(phrases), self.batch_size):
                part = slice(start, start + self.batch_size)
                length = int(rows.mask[part].sum(1).max())
                ids, mask = rows.ids[part, :length].to(device), rows.mask[part, :length].to(device)
                found = [self._token_maps(image, ids, mask) for image in images]
                for place, phrase in enumerate(phrases[part]):
                    offsets = rows.offsets[start + place]
                    result.append(
                        merge_sides([self._maps(maps[place], score[place], phrase, offsets) for maps, score in found])
                    )
        return result

    def _encode_image(self, image: np.ndarray, side: int, device: torch.device) -> Tensor:
        """Returns the class token and the patches (1, 1 + n·n, D) of an image."""
        pixels = prepare(image, side, self.blip.mean, self.blip.std).to(device)
        return self.blip.model.vision_model(pixels, interpolate_pos_encoding=True).last_hidden_state

    def _token_maps(self, image: Tensor, ids: Tensor, mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Returns the map of each sub-token (B, L, n, n), and the match logits (B,)."""
        if self.enc_token_id is not None:
            ids = ids.clone()
            ids[:, 0] = self.enc_token_id
        with torch.enable_grad():
            output = self.blip.model.text_encoder(
                input_ids=ids,
                attention_mask=mask,
                encoder_hidden_states=image.clone().requires_grad_(),  # one for all texts: its keys are made once
                output_attentions=True,
            )
            match = self.blip.model.itm_head(output.last_hidden_state[:, 0])[:, 1]
            attention = output.cross_attentions[self.layer]
            # a text's logit depends on its own attention alone, so that the sum gives each its gradient
            (gradient,) = torch.autograd.grad(match.sum(), attention)
        maps = (gradient.relu() * attention.detach()).mean(1)[:, :, 1:]
        side = round(maps.shape[-1] ** 0.5)
        return maps.reshape(*maps.shape[:2], side, side).cpu().numpy(), match.detach().cpu().numpy()

    def _maps(self, tokens: np.ndarray, score: np.ndarray, phrase: Phrase, offsets: Sequence[tuple[int, int]]) -> Maps:
        """Joins the maps of the sub-tokens (L, n, n) of one phrase."""

        def mean(spans: Sequence[tuple[int, int]]) -> np.ndarray:
            places = subtokens(offsets, spans, self.shift)
            return tokens[places].mean(0) if places else np.zeros(tokens.shape[1:], np.float32)

        return Maps(
            local=mean(phrase.spans(phrase.local)),
            context=mean(phrase.spans(phrase.context)),
            whole=tokens[0].copy(),
            average=mean([(0, len(phrase.text))]),
            score=float(score),
        )
