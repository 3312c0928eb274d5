"""A folder that stands in for the hub: towers, other models and tokenizers, with a manifest of what each file must be.

`s4eca weights fetch` writes it where the hub can be reached; `weights_folder=FOLDER` makes every config run from it.
"""

from s4eca.weights_folder.fetching import fetch_weights
from s4eca.weights_folder.manifest import Kept, Record, read_folder, verify_folder
from s4eca.weights_folder.needs import Need, list_needs
from s4eca.weights_folder.placing import place, usable_folder

__all__ = [
    "Kept",
    "Need",
    "Record",
    "fetch_weights",
    "list_needs",
    "place",
    "read_folder",
    "usable_folder",
    "verify_folder",
]
