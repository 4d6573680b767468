"""Engines that draw from a posterior: what one has to offer, the registry of those there are, and the choice of one.

An engine is one file: a class with a name and two functions, and a call of `register_engine`. Those that come with
the package are tried in this order by ``sampler="auto"``:

    exact   importance sampling of a Gaussian's few coordinates: a fraction of a second, where it can vouch for it
    nuts    NUTS on the PyMC model: everything
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

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


@runtime_checkable
class BatchEngine(Engine, Protocol):
    """An engine that draws from many posteriors in less time than from one after the other."""

    def draw_many(
        self, problems: Sequence[Problem], *, draws: int, seeds: Sequence[int]
    ) -> list[Draws | EngineRefusalError]:
        """Draw from the posterior of every problem, which the engine supports, with the numbers that `draw` gives."""


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
    names = list(ENGINES) if sampler == AUTO_SAMPLER else [sampler]
    return _draw_with_first(problem, names, sampler, [], draws=draws, seed=seed, progress=progress)


def _draw_with_first(
    problem: Problem,
    names: Sequence[str],
    sampler: str,
    earlier_refusals: Sequence[str],
    *,
    draws: int,
    seed: int,
    progress: bool,
) -> EngineResult:
    """Draw with the first of the named engines that can, after others have refused."""
    refusal_clauses = list(earlier_refusals)
    for name in names:
        refusal_reason = ENGINES[name].supports(problem)
        if refusal_reason is None:
            if progress and refusal_clauses:
                announce(f"The {name} engine takes over, because {'; '.join(refusal_clauses)}.")
            try:
                engine_draws = ENGINES[name].draw(problem, draws=draws, seed=seed, progress=progress)
            except EngineRefusalError as refusal:
                refusal_reason = refusal.reason
            else:
                return _build_result(name, engine_draws, sampler, refusal_clauses)
        refusal_clauses.append(_describe_refusal(name, refusal_reason))
    tried_names = list(ENGINES) if sampler == AUTO_SAMPLER else [sampler]
    *first_names, last_name = [name for name in list_sampler_names() if name not in tried_names]
    way_out = f"; use sampler {', '.join(first_names)} or {last_name}" if first_names else ""
    raise FitError("; ".join(refusal_clauses) + way_out)


def draw_posteriors(
    problems: Sequence[Problem], sampler: str, *, draws: int, seeds: Sequence[int]
) -> list[EngineResult | FitError]:
    """Draw from many posteriors with the first engine that may be used, together where it can.

    Parameters
    ----------
    problems : sequence of Problem
    sampler : str
    draws : int
        Of each problem.
    seeds : sequence of int
        One for each problem.

    Returns
    -------
    list of EngineResult or FitError
        Of each problem, what `draw_posterior` would give or raise.
    """
    names = list(ENGINES) if sampler == AUTO_SAMPLER else [sampler]
    engine = ENGINES[names[0]]
    batch: dict[int, Draws | EngineRefusalError] = {}
    if isinstance(engine, BatchEngine):
        supported = [number for number, problem in enumerate(problems) if engine.supports(problem) is None]
        drawn = engine.draw_many(
            [problems[number] for number in supported], draws=draws, seeds=[seeds[number] for number in supported]
        )
        batch = dict(zip(supported, drawn, strict=True))
    results: list[EngineResult | FitError] = []
    for number, (problem, seed) in enumerate(zip(problems, seeds, strict=True)):
        outcome = batch.get(number)
        if isinstance(outcome, Draws):
            results.append(_build_result(names[0], outcome, sampler, []))
            continue
        # What the first engine refused in the batch it would refuse again.
        refusals = [] if outcome is None else [_describe_refusal(names[0], outcome.reason)]
        try:
            results.append(
                _draw_with_first(
                    problem, names[len(refusals) :], sampler, refusals, draws=draws, seed=seed, progress=False
                )
            )
        except FitError as error:
            results.append(error)
    return results


def _build_result(name: str, engine_draws: Draws, sampler: str, refusal_clauses: list[str]) -> EngineResult:
    sentence = _explain_choice(name, engine_draws, sampler, refusal_clauses)
    return EngineResult(engine_draws, name, sentence)


def _describe_refusal(name: str, reason: str) -> str:
    return f"the {name} engine cannot solve this: {reason}"


def _explain_choice(name: str, engine_draws: Draws, sampler: str, refusal_clauses: list[str]) -> str:
    """Explain in one sentence how a posterior was drawn, and why by this engine."""
    description = engine_draws.description or f"Drawn by the {name} engine"
    if refusal_clauses:
        return f"{description}, because {'; '.join(refusal_clauses)}."
    # The first engine is what auto begins with: that it was named tells a reader nothing.
    is_named_on_purpose = sampler != AUTO_SAMPLER and name != next(iter(ENGINES))
    return f"{description}, as asked." if is_named_on_purpose else f"{description}."
