"""The garbage collector while tens of thousands of objects are made that all stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collection() -> Iterator[None]:
    """Keeps the cyclic garbage collector from looking through the whole process again and again.

    It does so after every so many new objects; beside PyTorch and transformers that is half the time of reading
    RRSIS-D. Objects without cycles, as a reader makes them, are freed as ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
