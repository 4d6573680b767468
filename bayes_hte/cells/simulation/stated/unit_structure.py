"""What ties units together: clusters with an intra-cluster correlation, and a covariate from before the experiment."""

import math
from dataclasses import dataclass

from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.cells.simulation.stated.numbers import check_count
from bayes_hte.errors import ArgumentError

CLUSTER_COLUMN, COVARIATE_COLUMN = "cluster", "before"


@dataclass(frozen=True, slots=True)
class UnitStructure:
    """What is stated of units beside their outcome.

    Attributes
    ----------
    cluster_size : int or None
        Units of each cluster; clusters are assigned to the arms as a whole. None where units are on their own.
    icc : float
        Correlation of the outcomes of two units of a cluster.
    pre_correlation : float or None
        Correlation of the outcome with the covariate within a cell; None where there is no covariate.
    """

    cluster_size: int | None = None
    icc: float = 0.0
    pre_correlation: float | None = None

    @property
    def cluster_column(self) -> str | None:
        """Column that names the clusters."""
        return None if self.cluster_size is None else CLUSTER_COLUMN

    @property
    def is_plain(self) -> bool:
        """Whether there is neither a cluster nor a covariate."""
        return self.cluster_size is None and self.pre_correlation is None


def read_structure(cluster_size: object, icc: object, pre_correlation: object) -> UnitStructure:
    """Read clusters and covariate.

    Raises
    ------
    ArgumentError
        If a correlation is none, or an icc is stated without clusters.
    """
    intra_correlation = to_float(icc)
    if intra_correlation is None or not 0 <= intra_correlation < 1:
        raise ArgumentError(
            f"icc is {describe_value(icc)}; the correlation within clusters is a number from 0 to less than 1"
        )
    if cluster_size is None and intra_correlation:
        raise ArgumentError("icc is the correlation within clusters; state their cluster_size too")
    correlation = None if pre_correlation is None else to_float(pre_correlation)
    if pre_correlation is not None and (
        correlation is None or not math.isfinite(correlation) or not -1 < correlation < 1
    ):
        raise ArgumentError(
            f"pre_correlation is {describe_value(pre_correlation)}; a correlation lies between -1 and 1"
        )
    size = None if cluster_size is None else check_count(cluster_size, "cluster_size", "units per cluster")
    return UnitStructure(size, intra_correlation, correlation)
