"""Tokenizers: from the hub or a folder, the built-in one for random text towers, and their files in a checkpoint."""

import string
import tempfile
from pathlib import Path

from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from s4eca.errors import S4ecaError

# what the expressions of RRSIS-D and RefSegRS are made of; anything else falls back to single letters. Words that are
# added stand at the end, so that the numbers of the others stay
AERIAL_WORDS = """
a above airplane airport along anchored and area at baseball basketball below bigger bikeway black blue bottom bridge
brown building bus car chimney cone court cyan dam dark driveway expressway far field frustum going golf grass gray
green ground harbor heavy huge impervious in is it large left light little located long low lower marking middle much
near next of on orange other oval overpass parked parking purple rectangular red right road rounded service ship side
sidewalk similar size slender small smaller stadium station storage surface tank tennis than that the there this
through tiny to toll top track trailer train tree truck upper van vegetation vehicle which white windmill with yellow
an
"""


def aerial_tokenizer() -> BertTokenizer:
    """Returns a WordPiece tokenizer that needs no download: aerial words, and single letters for the rest.

    For text towers with random weights, whose embeddings know no other vocabulary anyway.
    """
    letters = string.ascii_lowercase + string.digits
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *letters]
    tokens += [f"##{letter}" for letter in letters]
    tokens += [word for word in AERIAL_WORDS.split() if len(word) > 1]
    return BertTokenizer(vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))})


def load_tokenizer(source: str, key: str = "text") -> PreTrainedTokenizerBase:
    """Loads a tokenizer from a folder or by hub id.

    Args:
        source: the folder or id.
        key: config key that has a `tokenizer`, for the errors' remedy.

    Raises:
        S4ecaError: neither a readable folder nor a reachable hub id, or a folder without a vocabulary.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # OSError for an unreachable hub, ValueError and others for damaged files
        reason = str(error).splitlines()[0].rstrip(".")
        raise S4ecaError(
            f"the tokenizer in {source} could not be loaded ({reason}); give a folder that holds one with "
            f"{key}.tokenizer=PATH, or weights_folder=FOLDER, see `s4eca weights fetch`."
        ) from error
    # beside a model's config alone transformers makes up a tokenizer of nothing but special tokens
    if not any(tokenizer.get_vocab().keys() - tokenizer.all_special_tokens):
        raise S4ecaError(
            f"{source} holds no tokenizer with a vocabulary; give a folder that holds one with {key}.tokenizer=PATH."
        )
    return tokenizer


def tokenizer_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Returns the tokenizer's files by name, as `save_pretrained` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}


def tokenizer_from_files(files: dict[str, str]) -> PreTrainedTokenizerBase:
    """Rebuilds a tokenizer from the files of `tokenizer_files`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            # the files come out of a checkpoint: a name must not lead out of the folder
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        return load_tokenizer(folder)
