"""The report: one HTML file that needs nothing else, for people who will never open a notebook."""

from importlib.resources import files

import jinja2
import xarray as xr
from markupsafe import Markup

from bayes_hte.diagnose import Diagnosis
from bayes_hte.report.content import collect
from bayes_hte.spec import Plan
from bayes_hte.summary import Question
from bayes_hte.views import Tables

__all__ = ["render"]


def render(
    tree: xr.DataTree, question: Question, diagnosis: Diagnosis, plan: Plan | None, tables: Tables | None = None
) -> str:
    """The whole report as one self-contained HTML page.

    Parameters
    ----------
    tree : xarray.DataTree
        A fit's posterior.
    question : Question
        Scale, interval, smallest effect that matters.
    diagnosis : Diagnosis
        Whether the draws can be trusted; a failure is the first line of the page.
    plan : Plan or None
        Title, question, unit, and whether the segments were declared before the test.
    tables : Tables, optional
        What the fit says to this very question, where that is known already.

    Returns
    -------
    str
        HTML with inline styles and figures: no scripts, no requests, and a policy that forbids both.

    Raises
    ------
    ModelError
        If the scale needs a control mean that the family does not have.

    Notes
    -----
    Names come from data and are treated as hostile: the template escapes every text; only the figures, which
    `bayes_hte.plot.svg` has escaped, and the package's own style sheet enter as markup.
    """
    home = files("bayes_hte.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((home / "template.html.j2").read_text(encoding="utf-8"))
    style = Markup((home / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - a file of this package
    return template.render(report=collect(tree, question, diagnosis, plan, tables), style=style).lstrip()
