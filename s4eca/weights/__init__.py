"""Where a model's weights come from: the hub, a local path, or random ones by seed, and what they hash to.

Four forms decide it, the same for every tower and every other model: `weights=hub` fetches by name,
`weights=hf:OWNER/REPO/FILE` fetches one file of a hub repository, `weights=PATH` reads a file or a folder that the
library's own `save_pretrained` wrote, `weights=random` draws them from `seed`. There is no fallback from one to
another: weights that cannot be resolved are an error. `s4eca.weights_folder` stands in for the hub where there is none.

Under `torch.device("meta")` nothing is read or fetched: a model then has the shapes that its weights would have, which
is enough to see whether a config can be built (`s4eca.dry_build`).
"""

from s4eca.weights.identity import BaseWeights, hash_weights
from s4eca.weights.sources import HUB, HUB_FILE, RANDOM, SizesUnknownError, describe_source, fetch, is_hollow
from s4eca.weights.timm import load_timm
from s4eca.weights.transformers import Convert, load_text, load_transformers

__all__ = [
    "HUB",
    "HUB_FILE",
    "RANDOM",
    "BaseWeights",
    "Convert",
    "SizesUnknownError",
    "describe_source",
    "fetch",
    "hash_weights",
    "is_hollow",
    "load_text",
    "load_timm",
    "load_transformers",
]
