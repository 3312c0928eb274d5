"""How long a training waits for its batches."""

import time
from collections.abc import Iterator

from s4eca.data.references import Batch
from s4eca.data.sampler import ResumableLoader


class TimedLoader(ResumableLoader):
    """A resumable loader that keeps the time.

    Attributes:
        waited: seconds that the process which trains has spent here asking for batches, since the loader was made:
            for its workers, or loading by itself where it has none.
    """

    waited = 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yields batches as before."""
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch
