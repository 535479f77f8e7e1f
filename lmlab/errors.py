"""The mistakes that lmlab reports by one clear line, one type per kind of mistake.

The command line prints the message of an `LmlabError` without a traceback (unless `--debug`) and exits with
its `exit_code`. Anything else that escapes is a bug in lmlab or in a plug-in and shows its traceback.
"""


class LmlabError(Exception):
    """A mistake with a message for a person: what was asked for, where, what there is, and the way out."""

    exit_code = 1


class ConfigError(LmlabError):
    """The configuration cannot be run as written (parsing, names, types, fit between components)."""

    exit_code = 2


class DataError(LmlabError):
    """A corpus, file or tokenizer cannot serve what is asked of it."""

    exit_code = 3


class NotFetched(DataError):
    """A corpus is not on this machine; the message names the command that brings it."""


class CheckpointError(LmlabError):
    """A checkpoint is missing, damaged or does not fit the program that asks for it."""

    exit_code = 4


class NonFiniteError(LmlabError):
    """Training stopped because the loss or its gradient was not finite too many times in a row; or a model that is
    measured gives no numbers."""

    exit_code = 5


class RunFolderError(LmlabError):
    """The run folder cannot be written or read: permissions, a full disk, another run's folder."""

    exit_code = 6


class PeerLost(LmlabError):
    """Another process of the run ended or cannot be reached."""

    exit_code = 7


class OutOfMemory(LmlabError):
    """The host or a device has no room for what was asked of it.

    The exit code of a MemoryError, or of XLA's, that ends a command; in Python these reach the caller as they are.
    """

    exit_code = 8


class Interrupted(LmlabError):
    """SIGTERM or SIGINT ended the run after its state was saved (EX_TEMPFAIL: run the same command again)."""

    exit_code = 75


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or XLA (whose errors have one type for everything), could not allocate something."""
    if isinstance(error, MemoryError):
        return True
    said = str(error)
    return type(error).__name__ == "JaxRuntimeError" and ("Out of memory" in said or "RESOURCE_EXHAUSTED" in said)
