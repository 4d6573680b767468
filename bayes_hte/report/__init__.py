"""The report: one HTML file that needs nothing else, for people who will never open a notebook."""

from importlib.resources import files

import jinja2
import xarray as xr
from markupsafe import Markup

from bayes_hte.criticism.diagnostics import Diagnosis
from bayes_hte.estimands.result_tables import ResultTables
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.report.figures import name_page_colors
from bayes_hte.report.page import collect_page
from bayes_hte.spec import Plan

__all__ = ["render"]


def render(
    fit_tree: xr.DataTree,
    question: EffectQuestion,
    diagnosis: Diagnosis,
    plan: Plan | None,
    result_tables: ResultTables | None = None,
) -> str:
    """Render the whole report as one self-contained HTML page.

    Parameters
    ----------
    fit_tree : xarray.DataTree
        A fit's posterior.
    question : EffectQuestion
        Scale, interval, smallest effect that matters.
    diagnosis : Diagnosis
        Whether the draws can be trusted; a failure is the first line of the page.
    plan : Plan or None
        Title, question, unit, and what it says of when the segments were chosen.
    result_tables : ResultTables, optional
        Tables of this fit for this question, where they are computed already.

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
    template_files = files("bayes_hte.report") / "template"
    # A name that the template misspells is an error, not an empty place on the page.
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (template_files / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page_template = environment.get_template("page.html.j2")
    page_css = (template_files / "style.css").read_text(encoding="utf-8")
    report_page = collect_page(fit_tree, question, diagnosis, plan, result_tables)
    return page_template.render(
        report=report_page,
        style=Markup(page_css),  # noqa: S704 - a file of this package
        figure_style=name_page_colors(report_page.figure_css, page_css),
    ).lstrip()
