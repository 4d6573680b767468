"""Draw what ties units together: the level that a cluster shares, and a covariate from before the experiment."""

import numpy as np

from bayes_hte.cells.simulation.outcomes.binary import BinaryLaw
from bayes_hte.cells.simulation.outcomes.gaussian import GaussianLaw
from bayes_hte.cells.simulation.outcomes.law import LawParameters, OutcomeLaw
from bayes_hte.errors import ArgumentError


def draw_cluster_parameters(
    law: OutcomeLaw, parameters: LawParameters, icc: float, rng: np.random.Generator
) -> LawParameters:
    """Draw the parameters that the units of each cluster share, from those of its cell; (cluster,).

    Raises
    ------
    ArgumentError
        If the outcome is neither 0 and 1 nor a measurement.
    """
    if not isinstance(law, BinaryLaw | GaussianLaw):
        raise ArgumentError("clusters are drawn for the families binomial, normal and mean; choose one of these")
    if icc == 0:
        return parameters
    if isinstance(law, GaussianLaw):
        # y = mean + sd (√rho z_cluster + √(1 − rho) e)
        level = parameters["sd"] * np.sqrt(icc) * rng.standard_normal(parameters["mean"].shape)
        return {"mean": parameters["mean"] + level, "sd": parameters["sd"] * np.sqrt(1 - icc)}
    # p_cluster ~ Beta(p k, (1 − p) k) with k = (1 − rho) / rho:   Var p_cluster = rho p (1 − p)
    concentration = (1 - icc) / icc
    return {"mean": rng.beta(parameters["mean"] * concentration, (1 - parameters["mean"]) * concentration)}


def draw_covariate(
    outcome: np.ndarray,
    own: LawParameters,
    control: LawParameters,
    correlation: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw a covariate of every unit, on the scale of the control's outcome; `own` and `control` hold mean and sd."""
    # x = control mean + control sd (r (y − mean) / sd + √(1 − r²) e): mean and variance are those of every arm
    standardised = (outcome - own["mean"]) / own["sd"]
    noise = np.sqrt(1 - correlation**2) * rng.standard_normal(outcome.shape)
    return np.asarray(control["mean"] + control["sd"] * (correlation * standardised + noise))
