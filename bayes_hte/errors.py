"""Errors that the package raises on purpose, as one small tree: each says what is wrong, and the way out.

HteError (a ValueError)
├── ArgumentError  a call has an argument with a value that it cannot take, whatever the data
├── DataError      the rows, summaries or cells cannot answer the question
├── SpecError      a file that states something is wrong
│   ├── ModelError     what is believed: a model file, a prior, a family
│   └── PlanError      what is asked: a plan file
├── FitError       the sampler could not produce a posterior
└── OutputError    a result could not be written or read back
"""

from collections.abc import Sequence


class HteError(ValueError):
    """Root of every error that bayes_hte raises on purpose."""


class ArgumentError(HteError):
    """An argument of a call has a value that it cannot take, such as ``scale="abolute"`` or ``ci_prob=95``.

    Nothing is wrong with the data then, and a batch that goes on without the experiments whose data are wrong must
    stop here: the call is wrong for all of them. What is asked of a fit and is not in it (a dimension, an arm) is such
    an argument too; a column or an arm that data lack which are still to be read is a `DataError`, as it may well be
    the data's fault.
    """


class DataError(HteError):
    """The data cannot be analysed as asked.

    Attributes
    ----------
    missing_columns : tuple of str
        Columns that were named and are not there: more likely the fault of who named them.
    """

    def __init__(self, message: str = "", *, missing_columns: Sequence[str] = ()) -> None:
        """Keep the message, and the columns that are not there."""
        super().__init__(message)
        self.missing_columns = tuple(missing_columns)


class SpecError(HteError):
    """A plan or a model says something that cannot be carried out."""


class ModelError(SpecError):
    """A model file, a prior or a family is wrong, or does not fit the cells."""


class PlanError(SpecError):
    """A plan file is wrong."""


class FitError(HteError):
    """The sampler could not produce a posterior."""


class OutputError(HteError):
    """A result could not be written, or a saved one could not be read."""
