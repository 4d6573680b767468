"""Evaluations that searches and samplers ask for: carried out one by one, or those of many problems at once.

A search is a generator: it yields a request, is sent the answer, and returns its result. It knows nothing of other
problems; whoever drives it may answer the requests of hundreds of searches by one evaluation, for arrays of a few
numbers cost as much as those of hundreds.
"""

from collections import defaultdict
from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayes_hte.inference.exact.latent.density import LatentDensity
from bayes_hte.inference.exact.latent.joint_density import join_densities, split_density
from bayes_hte.inference.exact.latent.weights import LatentDraws, weigh_points
from bayes_hte.model.normal_scores import Array


@dataclass(frozen=True, slots=True)
class ApproximateDensity:
    """Approximate the log density at points (point, coordinate); the answer is (point,)."""

    density: LatentDensity
    points: Array


@dataclass(frozen=True, slots=True)
class SettleSites:
    """Settle references and sites at a point (coordinate,); the answer is the density there."""

    density: LatentDensity
    point: Array


@dataclass(frozen=True, slots=True)
class WeighPoints:
    """Weigh points exactly; the answer is `LatentDraws`."""

    density: LatentDensity
    points: Array
    rng: np.random.Generator


type Request = ApproximateDensity | SettleSites | WeighPoints
type Answer = Array | LatentDensity | LatentDraws
type Steps[Result] = Generator[Request, Any, Result]
"""A search or sampler: what it yields is asked for, what it returns is its result."""


def carry_out[Result](steps: Steps[Result]) -> Result:
    """Carry out one search, answering its requests one by one.

    Raises
    ------
    LinAlgError
        If a matrix is not positive definite, as where numbers are not finite.
    """
    answer: Answer | None = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as end:
            result: Result = end.value
            return result
        answer = answer_request(request)


def carry_out_together[Result](all_steps: Sequence[Steps[Result]]) -> list[Result | np.linalg.LinAlgError]:
    """Carry out searches of problems that are alike, answering the requests of all by as few evaluations as possible.

    Parameters
    ----------
    all_steps : sequence
        Of problems with the same structure: model, family, numbers of segments and arms.

    Returns
    -------
    list
        Of each search, its result, or the error of linear algebra that ended it.
    """
    results: dict[int, Result | np.linalg.LinAlgError] = {}
    answers: dict[int, Answer | np.linalg.LinAlgError | None] = dict.fromkeys(range(len(all_steps)))
    while answers:
        requests: dict[int, Request] = {}
        for number, answer in answers.items():
            try:
                requests[number] = _send_answer(all_steps[number], answer)
            except StopIteration as end:
                results[number] = end.value
            except np.linalg.LinAlgError as error:
                results[number] = error
        answers = dict(zip(requests, answer_requests(list(requests.values())), strict=True))
    return [results[number] for number in range(len(all_steps))]


def _send_answer(steps: Steps[Any], answer: Answer | np.linalg.LinAlgError | None) -> Request:
    return steps.throw(answer) if isinstance(answer, np.linalg.LinAlgError) else steps.send(answer)


def answer_request(request: Request) -> Answer:
    """Answer one request."""
    match request:
        case ApproximateDensity():
            return request.density.approximate(request.points)
        case SettleSites():
            return request.density.settled(request.point)
        case WeighPoints():
            return weigh_points(request.density, request.points, request.rng)


def answer_requests(requests: Sequence[Request]) -> list[Answer | np.linalg.LinAlgError]:
    """Answer requests, in their order; those of one kind together.

    Draws are weighed one problem at a time: hundreds of points fill the arrays, and each problem has its own stream of
    random numbers.
    """
    answers: list[Answer | np.linalg.LinAlgError | None] = [None] * len(requests)
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
        if isinstance(request, WeighPoints):
            answers[number] = _answer_alone(request)
        else:
            density = request.density
            alike[type(request), density.site_steps, density.newton_steps].append(number)
    for numbers in alike.values():
        for chunk in _cut_chunks([requests[number] for number in numbers]):
            members = [numbers[place] for place in chunk]
            found = _answer_together([requests[number] for number in members])
            for number, answer in zip(members, found, strict=True):
                answers[number] = answer
    return [answer for answer in answers if answer is not None]


def _answer_alone(request: Request) -> Answer | np.linalg.LinAlgError:
    try:
        return answer_request(request)
    except np.linalg.LinAlgError as error:
        return error


def _count_rows(request: Request) -> int:
    return 1 if isinstance(request, SettleSites) else len(request.points)


def _cut_chunks(requests: Sequence[Request]) -> list[list[int]]:
    """Cut requests into chunks whose arrays fit a core's cache: places of the requests of each."""
    size = requests[0].density.rows_per_chunk
    chunks: list[list[int]] = []
    filled = size
    for place, request in enumerate(requests):
        rows = _count_rows(request)
        if filled + rows > size:
            chunks.append([])
            filled = 0
        chunks[-1].append(place)
        filled += rows
    return chunks


def _answer_together(requests: Sequence[Request]) -> Sequence[Answer | np.linalg.LinAlgError]:
    """Answer requests of one kind by one evaluation; one by one where it fails, for one problem must not end others."""
    if len(requests) == 1:
        return [_answer_alone(requests[0])]
    counts = [_count_rows(request) for request in requests]
    joint = join_densities([request.density for request in requests], counts)
    try:
        if isinstance(requests[0], SettleSites):
            points = np.stack([request.point for request in requests if isinstance(request, SettleSites)])
            return split_density(joint.settled_rows(points), [request.density for request in requests])
        points = np.concatenate([request.points for request in requests if not isinstance(request, SettleSites)])
        values = joint.approximate_rows(points)
        return np.split(values, np.cumsum(counts)[:-1])
    except np.linalg.LinAlgError:
        return [_answer_alone(request) for request in requests]
