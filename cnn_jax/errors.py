"""The errors a person can meet.

Each message is one line that says what is wrong, where, and what to do about it.
The command line prints that line and exits with status 2; any other exception that
reaches it is a bug of ours.
"""


class CnnJaxError(Exception):
    """Base of every error that is the input's or the machine's, not a bug."""


class DataError(CnnJaxError, ValueError):
    """Images, labels or splits that cannot be read or do not fit together."""


class MissingDataError(DataError):
    """A data set that is not where it is looked for."""


class RecipeError(CnnJaxError, ValueError):
    """A field or a value that a recipe does not have."""


class ModelError(CnnJaxError, ValueError):
    """A model that does not exist, or that does not fit the images."""


class EvaluationError(CnnJaxError, ValueError):
    """Predictions from which a figure cannot be computed."""


class CheckpointError(CnnJaxError):
    """A checkpoint that is damaged, missing or of another model."""


class RunError(CnnJaxError):
    """A run folder that is in use, incomplete or not a run folder."""


class NonFiniteLossError(CnnJaxError):
    """Training produced a loss that is not a number or infinite."""


class BenchmarkError(CnnJaxError):
    """A measurement that cannot be made, or results that cannot be compared."""


class NativeError(CnnJaxError):
    """Compiled kernels that cannot be built or used on this machine."""


def out_of_memory(error: RuntimeError) -> str:
    """The first line of what XLA says where a device has no more memory; else empty.

    Its error has no type of its own that can be told without importing jax.
    """
    text = str(error)
    return text.splitlines()[0] if text.startswith("RESOURCE_EXHAUSTED") else ""


def printable(text: str) -> str:
    """Without control characters, which a file name may hold and a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
