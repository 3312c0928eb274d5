"""The parts that a training step is divided into, in the order of the table."""

LOADER = "loader wait"
TRANSFER = "transfer to device"
CACHE = "feature cache"
TEXT = "text tower"
VISION = "vision tower"
METHOD = "method"
FUSION = "fusion"
DECODER = "decoder, norms"
LOSS = "loss"
BACKWARD = "backward"
RECOMPUTED = "recomputed forward"
OPTIMIZER = "optimiser, clipping"
CALLBACKS = "callbacks"
REST = "rest"

PARTS = (
    *(LOADER, TRANSFER, CACHE, TEXT, VISION, METHOD, FUSION, DECODER, LOSS),
    *(BACKWARD, RECOMPUTED, OPTIMIZER, CALLBACKS, REST),
)

# rows that are left out where nothing happened in them
OCCASIONAL = (CACHE, RECOMPUTED)

# what a recomputed block runs again in the backward pass
NETWORK = (TEXT, VISION, METHOD, FUSION, DECODER)

TOWERS = {"text": TEXT, "vision": VISION}


def part_of_parameter(name: str, learned: bool) -> str:
    """Returns whose parameter it is, by its name in the segmenter; tower weights that are learned are the method's."""
    head = name.partition(".")[0]
    if head in TOWERS and not learned:
        return TOWERS[head]
    return {"norms": DECODER, "decoder": DECODER, "refine": DECODER, "fusion": FUSION}.get(head, METHOD)
