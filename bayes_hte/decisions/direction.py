"""Ask which direction is better, where nobody has said so and the outcome's name or its rate makes it doubtful.

An effective vaccine lowers infections: a report that takes higher as better would call it harmful. Names are no proof,
so nothing is guessed: the question stands above the answer, and until it is answered no effect is called help or harm.
"""

import re
import unicodedata
from itertools import pairwise
from typing import Final

import xarray as xr

from bayes_hte.cells.checks.wording import quote_column
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.spec.cell_table import ARM, INTERVAL, SEGMENT
from bayes_hte.spec.fit_tree import get_fitted_cells, get_stated_direction

RARE_EVENT_RATE: Final = 0.05
"""Below one in twenty an event whose name says nothing is as often one to avoid as one to wish for."""


def _list_words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Beginnings of words, without accents: long enough not to begin words of another meaning. English first.
_BAD_STEMS: Final = _list_words(
    """
    death died dying mortal fatal suicid overdos infect relaps recurr readmi hospitali diseas illness sickness symptom
    toxic advers complicat injur accident crash bleed stroke fractur sepsis progression deteriorat anxi depress stress
    churn attrition unsubscri uninstall cancel abandon dropout dropoff lapsed bounc complain refund chargeback disput
    fraud spam abus violat error fail fault defect incident outage downtime timeout latenc delay overdue arrear
    delinquen bankrupt insolven unemploy absen truan dismiss expens penalt waste rework crimin recidiv arrest rearrest
    emission pollut
    gestorb verstorb sterb krank infiziert kosten fehler ausfall kundigung gekundigt abbruch retour rucksend reklam
    beschwerd deces erreur plainte resili rembours muert queja fracas enferm devolucion reembols falha queix obito
    decess guast reclam rimbors
    """
)
# Words that mean it only when they are whole: longer ones that begin so mean something else.
_BAD_WORDS: Final = _list_words(
    """
    dead die dies ill sick case cases cost costs loss losses lost debt return returns returned miss missed mistake
    mistakes default defaulted defaults late wait waiting lag bug bugs crime crimes pain pains churned optout noshow
    lcp ttfb cls tti cpa cpc cpm tod tot storno stornos mort morts cout couts panne echec perte pertes morte mortes
    costo costos coste costes custo custos costi fallo fallos baja bajas perdida perdidas
    """
)
# Two words in a row, the second of which says little alone.
_BAD_PAIRS: Final = frozenset(
    {
        *(("time", "to"), ("time", "until"), ("days", "to"), ("days", "until"), ("hours", "to"), ("minutes", "to")),
        *(("opt", "out"), ("opted", "out"), ("drop", "out"), ("drop", "off"), ("no", "show"), ("side", "effect")),
        *(("side", "effects"), ("load", "time"), ("response", "time"), ("wait", "time"), ("render", "time")),
        *(("query", "time"), ("lead", "time"), ("cycle", "time"), ("weight", "gain")),
    }
)
# Something bad was kept away: good, whatever stands beside it.
_AVERTED_STEMS: Final = _list_words(
    "surviv recover cured heal resolv prevent avoid saving saved reduc remission rescued"
)
_GOOD_STEMS: Final = _list_words(
    """
    success complete completi retain retention renew convert conversion purchas bought buy order sale sold revenu
    profit margin earn income click visit view open engag active activat signup subscri register registra enrol upgrad
    refer like share play read reply replied respon score point grade pass graduat satisf nps rating employ hired donat
    gift vote turnout adopt accept book attend kauf bestell umsatz gewinn achat achet vente revente compra venta ingres
    """
)
_GOOD_WORDS: Final = frozenset({"won", "win", "wins", "ctr", "cvr", "arpu", "aov", "ltv", "gmv", "dau", "mau"})
_NEGATIONS: Final = frozenset(
    {"no", "not", "non", "never", "without", "free", "anti", "zero", "ohne", "nicht", "sans", "sin"}
)


def ask_about_direction(cells: xr.Dataset, stated_direction: bool | None) -> str:
    """Ask whether higher is better, where it was not stated and is doubtful.

    Parameters
    ----------
    cells : xarray.Dataset
        Cell table, dims (segment, arm).
    stated_direction : bool or None
        What the plan or the caller said of ``higher_is_better``; None if nothing.

    Returns
    -------
    str
        A sentence to follow "note: "; "" where there is nothing to ask.

    Examples
    --------
    >>> import pandas as pd, bayes_hte as hte
    >>> counts = pd.DataFrame({"site": ["A", "A"], "arm": ["old", "new"], "n": [90, 90], "relapsed": [30, 12]})
    >>> cells = hte.cells.from_summary(
    ...     counts, outcome="relapsed", arm="arm", control="old", segments=["site"], n="n", events="relapsed"
    ... )
    >>> ask_about_direction(cells, None).partition(",")[0]
    "is a higher 'relapsed' better? The name sounds like something to avoid"
    >>> ask_about_direction(cells, False)
    ''
    """
    if stated_direction is not None:
        return ""
    outcome = str(cells.attrs["outcome"])
    reason = _find_reason(outcome, cells)
    if not reason:
        return ""
    return (
        f"is a higher {quote_column(outcome)} better? {reason}, and nobody has said so: until then no effect is called "
        "help or harm, and ranks and signs take higher as better. Say higher_is_better = false, or true, under "
        "[report] of the plan, or higher_is_better=False in Python"
    )


def is_direction_known(fit_tree: xr.DataTree, question: EffectQuestion) -> bool:
    """Tell whether help and harm can be told apart: the direction was stated, or nothing makes it doubtful."""
    # A question that takes lower as better states it.
    stated_direction = get_stated_direction(fit_tree) if question.higher_is_better else False
    return not ask_about_direction(get_fitted_cells(fit_tree), stated_direction)


def _find_reason(outcome: str, cells: xr.Dataset) -> str:
    """Find why the direction is doubtful: a name that is usually bad, or a rare event of unknown kind."""
    sounds = judge_name(outcome)
    if sounds == "bad":
        return "The name sounds like something to avoid"
    if sounds == "good":
        return ""
    if "failures" in cells:
        return "Events over time are mostly something to avoid"
    event_rate = _compute_event_rate(cells)
    if event_rate is not None and 0 < event_rate < RARE_EVENT_RATE:
        return f"It happens to {100 * event_rate:.2g} % of the units, and rare events are often something to avoid"
    return ""


def judge_name(outcome: str) -> str:
    """Judge whether a name sounds ``good`` or ``bad``; "" where it says neither.

    Examples
    --------
    >>> [judge_name(name) for name in ("deaths30d", "isRefunded", "time_to_resolve", "avoided_errors", "spent")]
    ['bad', 'bad', 'bad', 'good', '']
    """
    words = _split_words(outcome)
    # A time until something is better when it is short, and pairs such as "no show" are no negations.
    if _BAD_PAIRS & set(pairwise(words)):
        return "bad"
    if _NEGATIONS & set(words):
        return ""
    if any(word.startswith(_AVERTED_STEMS) for word in words):
        return "good"
    # Bad goes before good: lost sales, cost per click.
    if any(word in _BAD_WORDS or word.startswith(_BAD_STEMS) for word in words):
        return "bad"
    return "good" if any(word in _GOOD_WORDS or word.startswith(_GOOD_STEMS) for word in words) else ""


def _split_words(name: str) -> list[str]:
    """Split a name into lower-case words without accents: snake_case, camelCase, kebab-case, digits."""
    unaccented = "".join(
        character for character in unicodedata.normalize("NFKD", name) if not unicodedata.combining(character)
    )
    # ABCDef is ABC Def, and aB is a B.
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", unaccented)
    return re.findall(r"[a-z]+", spaced.casefold())


def _compute_event_rate(cells: xr.Dataset) -> float | None:
    """Compute the share of units with the event, over all arms; None where the outcome is no event of units."""
    # Σ events / Σ n over segments and arms; counts over an exposure may happen many times to a unit.
    if "events" not in cells or "n" not in cells or "exposure" in cells or INTERVAL in cells.dims:
        return None
    unit_count = float(cells["n"].sum((SEGMENT, ARM)))
    return float(cells["events"].sum((SEGMENT, ARM))) / unit_count if unit_count > 0 else None
