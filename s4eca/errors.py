"""The one exception of the package: a sentence for the user."""


class S4ecaError(Exception):
    """Something the user can mend; the message is one sentence naming the thing and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """
