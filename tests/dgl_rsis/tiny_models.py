"""Tiny random CLIP, BLIP, SAM and SAM 2 for the tests of DGL-RSIS, as the package loads them."""

from typing import Any

from transformers import Sam2Model, SamModel

from s4eca.dgl_rsis.models import Blip, Clip, load_sam

TEXT = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 48,
}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}

SAM = {
    "vision_config": {
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
        "mlp_dim": 48,
        "initializer_range": 0.1,
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
    "mask_decoder_config": {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    },
    "initializer_range": 0.1,
}

SAM2 = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [64, 64],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [4, 2, 2, 2],
            "global_attention_blocks": [3],
            "window_positional_embedding_background_size": [4, 4],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 16,
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
    "mask_decoder_config": {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
}


def clip_options(**options: Any) -> dict[str, Any]:
    """Fields of a tiny CLIPConfig; `text_config` and `vision_config` are laid over the tiny ones."""
    vision = {"image_size": 32, "patch_size": 8, **VISION, **options.pop("vision_config", {})}
    text = {**TEXT, **options.pop("text_config", {})}
    return {"text_config": text, "vision_config": vision, "projection_dim": 24, **options}


def blip_options(**options: Any) -> dict[str, Any]:
    """Fields of a tiny BlipConfig, with 6 x 6 cells, alike."""
    # the library's own spread of 1e-10 would leave an image without any influence
    vision = {
        "image_size": 96,
        "patch_size": 16,
        "initializer_range": 0.1,
        **VISION,
        **options.pop("vision_config", {}),
    }
    text = {**TEXT, "initializer_range": 0.1, **options.pop("text_config", {})}
    return {
        "text_config": text,
        "vision_config": vision,
        "image_text_hidden_size": 16,
        "initializer_range": 0.1,
        **options,
    }


def tiny_clip(seed: int = 0, **options: Any) -> Clip:
    return Clip(weights="random", seed=seed, options=clip_options(**options))


def tiny_blip(seed: int = 0, **options: Any) -> Blip:
    return Blip(weights="random", seed=seed, options=blip_options(**options))


def tiny_sam(seed: int = 0) -> SamModel:
    return load_sam(SamModel, "tiny", "random", seed, SAM)[0]


def tiny_sam2(seed: int = 0) -> Sam2Model:
    return load_sam(Sam2Model, "tiny", "random", seed, SAM2)[0]
