"""Features of regions from CLIP's image transformer: its pooling is restricted to a mask, its weights are untouched."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPVisionModel

from s4eca.dgl_rsis.models import Clip


def patch_coverage(mask: Tensor, rows: int, columns: int) -> Tensor:
    """Returns how much of each patch a mask covers (rows, columns), in [0, 1].

    The patches divide the mask's area evenly; a pixel that lies in several patches counts in each by its share. Both
    larger and smaller masks than the grid are therefore exact.

    Args:
        mask: (H, W) bool or float.
        rows: of patches.
        columns: of patches.
    """
    cells = mask.to(torch.float32)
    return (_shares(len(mask), rows, mask.device) @ cells @ _shares(mask.shape[1], columns, mask.device).T).clamp(0, 1)


def masked_features(clip: Clip, pixels: Tensor, coverage: Tensor, eps: float) -> Tensor:
    """Returns one feature (B, M, D) of unit length for each mask.

    In the last block the CLS token asks once for each mask, with attention
    `softmax(q K^T / sqrt(d) + log((1 - eps) m + eps))`, m being the coverage of each patch; the CLS token itself is
    always seen. All that is before the last block is shared by the masks of an image. A mask that is 1 everywhere
    gives CLIP's own feature; a hard mask (`eps` 0) that covers nothing leaves the CLS token alone. "Mask-guided visual
    features" are the paper's (Xu et al., arXiv 2509.00598, abstract); this form is a reconstruction, near to the
    attention of TextRegion.

    Args:
        clip: the model.
        pixels: (B, 3, S, T) normalised; positions are interpolated where it is not of the model's own size.
        coverage: (B, M, S / patch, T / patch) in [0, 1].
        eps: weight of a patch outside the mask before the softmax: 0 hides it, 1 is ordinary CLIP.
    """
    vision = clip.model.vision_model
    *earlier, last = vision.encoder.layers
    hidden = _embed(vision, pixels)
    for layer in earlier:
        hidden = layer(hidden, None)
    bias = F.pad(torch.log(eps + (1 - eps) * coverage.flatten(2)), (1, 0))  # 0 for CLS
    attention, normed = last.self_attn, last.layer_norm1(hidden)

    def by_head(x: Tensor) -> Tensor:
        return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    query = by_head(attention.q_proj(normed[:, :1])).expand(-1, -1, coverage.shape[1], -1)
    key, value = by_head(attention.k_proj(normed)), by_head(attention.v_proj(normed))
    heads = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[:, None])
    cls = hidden[:, :1] + attention.out_proj(heads.transpose(1, 2).flatten(2))
    cls = cls + last.mlp(last.layer_norm2(cls))
    return _project(clip, cls)


def token_masked_features(clip: Clip, pixels: Tensor, coverage: Tensor, block: int, batch_size: int) -> Tensor:
    """Returns one feature (M, D) of unit length for each mask of one image: GL-CLIP's token masking.

    Before every block from `block` on, the patch tokens are multiplied by their coverage; CLS goes on as it is. The
    blocks before it are shared by the masks. Follows Global-Local CLIP (Yu et al., CVPR 2023), which has `block` 9 of
    ViT-B/32's twelve, counted from 0.

    Args:
        clip: the model.
        pixels: (1, 3, S, T) normalised; positions are interpolated where it is not of the model's own size.
        coverage: (M, S / patch, T / patch) in [0, 1].
        block: first one with masked tokens, counted from 0.
        batch_size: how many masks go through the blocks together.
    """
    vision = clip.model.vision_model
    shared = _embed(vision, pixels)
    for layer in vision.encoder.layers[:block]:
        shared = layer(shared, None)
    features = []
    for weights in F.pad(coverage.flatten(1), (1, 0), value=1.0)[:, :, None].split(batch_size):
        hidden = shared.expand(len(weights), -1, -1)
        for layer in vision.encoder.layers[block:]:
            hidden = layer(hidden * weights, None)
        features.append(_project(clip, hidden[:, 0]))
    return torch.cat(features)


def _embed(vision: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """Returns the tokens (B, 1 + N, C) before the first block; at the model's own size positions stay as they are."""
    return vision.pre_layrnorm(vision.embeddings(pixels, interpolate_pos_encoding=True))


def _project(clip: Clip, cls: Tensor) -> Tensor:
    return F.normalize(clip.model.visual_projection(clip.model.vision_model.post_layernorm(cls)), dim=-1)


def _shares(pixels: int, cells: int, device: torch.device) -> Tensor:
    """Returns which part of each cell (cells, pixels) each pixel of a row takes; the rows sum to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64, device=device) * pixels / cells
    start = torch.arange(pixels, dtype=torch.float64, device=device)
    overlap = torch.minimum(edges[1:, None], start + 1) - torch.maximum(edges[:-1, None], start)
    return (overlap.clamp(min=0) * cells / pixels).float()
