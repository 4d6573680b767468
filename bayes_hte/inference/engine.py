"""Engines that draw from a posterior: what one has to offer, the registry of those there are, and the choice of one.

An engine is one file: a class with a name and two functions, and a call of `register_engine`. Those that come with
the package are tried in this order by ``sampler="auto"``:

    exact   importance sampling of a Gaussian's few coordinates: a fraction of a second, where it can vouch for it
    nuts    NUTS on the PyMC model: everything
"""

from dataclasses import dataclass
from typing import Final, Protocol

from bayes_hte.errors import FitError
from bayes_hte.inference.announcements import announce
from bayes_hte.inference.draws import Draws, EngineRefusalError
from bayes_hte.inference.exact import ExactEngine
from bayes_hte.inference.nuts.engine import NutsEngine
from bayes_hte.model.problem import Problem

AUTO_SAMPLER: Final = "auto"
"""In place of an engine's name: the first that can solve the problem."""


class Engine(Protocol):
    """What draws from the posterior of a problem."""

    @property
    def name(self) -> str:
        """One word, which ``sampler=`` takes and the fit records."""

    def supports(self, problem: Problem) -> str | None:
        """Give the reason why the engine cannot solve a problem, as a clause; None if it can.

        Parameters
        ----------
        problem : Problem

        Returns
        -------
        str or None
            Follows "the … engine cannot solve this:", without a full stop.
        """

    def draw(self, problem: Problem, *, draws: int, seed: int, progress: bool) -> Draws:
        """Draw from the posterior of a problem that the engine supports.

        Parameters
        ----------
        problem : Problem
        draws : int
            Wanted in all, over `bayes_hte.inference.draws.CHAIN_COUNT` chains; an engine may take fewer and say so.
        seed : int
            The only source of randomness.
        progress : bool
            Show a progress bar.

        Returns
        -------
        Draws

        Raises
        ------
        EngineRefusalError
            If the engine finds out that it cannot vouch for the result.
        FitError
            If it breaks down.
        """


ENGINES: Final[dict[str, Engine]] = {engine.name: engine for engine in (ExactEngine(), NutsEngine())}
"""Name -> engine, in the order in which ``sampler="auto"`` tries them; changed by `register_engine` alone."""


def register_engine(engine: Engine, *, before: str | None = None) -> None:
    """Make an engine known to ``hte.fit(…, sampler=engine.name)``.

    Parameters
    ----------
    engine : Engine
    before : str, optional
        The engine ahead of which ``sampler="auto"`` tries this one; by default it is tried last.

    Raises
    ------
    ValueError
        If the name is taken, or no engine is called `before`.
    """
    if engine.name in (AUTO_SAMPLER, *ENGINES):
        raise ValueError(f"the sampler name {engine.name!r} is taken; taken are {', '.join(list_sampler_names())}")
    if before is not None and before not in ENGINES:
        raise ValueError(f"no engine {before!r} to be tried after; there are {', '.join(ENGINES)}")
    # The order of the registry is the order of auto: so it is filled anew, with the engine in its place.
    known_engines = dict(ENGINES)
    ENGINES.clear()
    for name, known_engine in known_engines.items():
        if name == before:
            ENGINES[engine.name] = engine
        ENGINES[name] = known_engine
    ENGINES.setdefault(engine.name, engine)


def remove_engine(name: str) -> None:
    """Remove an engine from the registry; fits that it drew stay as they are.

    Raises
    ------
    KeyError
        If there is no such engine.
    """
    del ENGINES[name]


def list_sampler_names() -> tuple[str, ...]:
    """List what ``sampler=`` takes: auto, and every registered engine."""
    return (AUTO_SAMPLER, *ENGINES)


@dataclass(frozen=True, slots=True)
class EngineResult:
    """Draws, the engine that drew them, and a sentence on which one and why."""

    draws: Draws
    engine_name: str
    engine_sentence: str

    @property
    def sampler(self) -> str:
        """The engine's name, with the library that it uses in brackets."""
        return f"{self.engine_name} ({self.draws.library})" if self.draws.library else self.engine_name


def draw_posterior(problem: Problem, sampler: str, *, draws: int, seed: int, progress: bool) -> EngineResult:
    """Draw with the engine that is named, or with the first that can solve the problem.

    Raises
    ------
    FitError
        If the engine, or every engine, refuses the problem, or one breaks down.
    """
    tried_names = list(ENGINES) if sampler == AUTO_SAMPLER else [sampler]
    refusal_clauses: list[str] = []
    for name in tried_names:
        refusal_reason = ENGINES[name].supports(problem)
        if refusal_reason is None:
            if progress and refusal_clauses:
                announce(f"The {name} engine takes over, because {'; '.join(refusal_clauses)}.")
            try:
                engine_draws = ENGINES[name].draw(problem, draws=draws, seed=seed, progress=progress)
            except EngineRefusalError as refusal:
                refusal_reason = refusal.reason
            else:
                sentence = _explain_choice(name, engine_draws, sampler, refusal_clauses)
                return EngineResult(engine_draws, name, sentence)
        refusal_clauses.append(f"the {name} engine cannot solve this: {refusal_reason}")
    *first_names, last_name = [name for name in list_sampler_names() if name not in tried_names]
    way_out = f"; use sampler {', '.join(first_names)} or {last_name}" if first_names else ""
    raise FitError("; ".join(refusal_clauses) + way_out)


def _explain_choice(name: str, engine_draws: Draws, sampler: str, refusal_clauses: list[str]) -> str:
    """Explain in one sentence how a posterior was drawn, and why by this engine."""
    description = engine_draws.description or f"Drawn by the {name} engine"
    if refusal_clauses:
        return f"{description}, because {'; '.join(refusal_clauses)}."
    # The first engine is what auto begins with: that it was named tells a reader nothing.
    is_named_on_purpose = sampler != AUTO_SAMPLER and name != next(iter(ENGINES))
    return f"{description}, as asked." if is_named_on_purpose else f"{description}."
