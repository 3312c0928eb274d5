"""The one exception of the package: a sentence for the user."""


class S4ecaError(Exception):
    """Something the user can mend; the message is one sentence naming the thing and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: CUDA's, or the CPU allocator's."""
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in ("DefaultCPUAllocator", "allocate memory"))
    )
