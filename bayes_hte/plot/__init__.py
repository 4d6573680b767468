"""Figures of a result: tables in, matplotlib figures out, never through pyplot's global state.

    forest      every segment's raw and pooled effect in one row, under the average effect
    shrinkage   how far pooling moved each segment, against its size
    prior       what the prior allows effects to be, and what the data made of it
    trace       every segment's effect as a function of tau, above the posterior of tau
    Theme       colours, given to any of them as `theme`
    save        a figure to an .svg or .png file
    svg         a figure as an element for a web page

matplotlib is loaded with this package and by nothing else in bayes_hte.
"""

from bayes_hte.plot.drawing.theme import Theme
from bayes_hte.plot.drawing.write import save, svg
from bayes_hte.plot.forest.figure import forest
from bayes_hte.plot.prior import ArmBelief, prior
from bayes_hte.plot.shrinkage import shrinkage
from bayes_hte.plot.tau_trace import trace

__all__ = ["ArmBelief", "Theme", "forest", "prior", "save", "shrinkage", "svg", "trace"]
