"""Keep results and their speed independent of the caller's NumPy and BLAS settings.

BLAS       matrices here are small, and threads that wait for each other on a busy machine take thirty times as long as
           one: a single thread is used while a public function computes
NumPy      what is a number elsewhere, such as an underflow to 0, is an error after ``np.seterr(all="raise")``: NumPy's
           own defaults hold while a public function computes

Both are set where a call enters the package, and restored when the last such call leaves it.
"""

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class _BlasLimit:
    """One BLAS thread while any call is inside.

    Some BLAS libraries have one setting for the process, others one for every thread. So every thread sets its own and
    restores it, and the last call to leave restores what the first one found: with one setting for all, later calls
    found the limit of those before them.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls = 0
        self.controller: Any = None
        self.knew_scipy = False
        self.first: Any = None

    def enter(self) -> Any:
        """Limit BLAS, and return what restores it."""
        with self.lock:
            limiter = self._find_libraries().limit(limits=1, user_api="blas")
            self.first = limiter if self.calls == 0 else self.first
            self.calls += 1
        return limiter

    def leave(self, limiter: Any) -> None:
        """Restore what a call found, and after the last one what the first found."""
        with self.lock:
            limiter.restore_original_limits()
            self.calls = max(self.calls - 1, 0)
            if self.calls == 0 and self.first is not None:
                self.first.restore_original_limits()
                self.first = None

    def forget_calls(self) -> None:
        """Forget, in a forked process, the calls of its parent's other threads: they never leave here."""
        self.lock, self.calls, self.first = threading.Lock(), 0, None

    def _find_libraries(self) -> Any:
        """Find the BLAS libraries of the process, which takes milliseconds: again only once SciPy brought its own."""
        from threadpoolctl import ThreadpoolController

        knows_scipy = "scipy.linalg" in sys.modules
        if self.controller is None or knows_scipy != self.knew_scipy:
            self.controller, self.knew_scipy = ThreadpoolController(), knows_scipy
        return self.controller


_blas_limit = _BlasLimit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_blas_limit.forget_calls)


@contextmanager
def isolate_numerics() -> Iterator[None]:
    """Compute with one BLAS thread and NumPy's default handling of floating-point errors.

    Examples
    --------
    >>> import numpy as np
    >>> with np.errstate(all="raise"), isolate_numerics():
    ...     float(np.exp(np.array(-1000.0)))
    0.0
    """
    limiter = _blas_limit.enter()
    try:
        with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
            yield
    finally:
        _blas_limit.leave(limiter)


def isolate_call[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Make a function compute inside `isolate_numerics`."""

    @functools.wraps(function)
    def isolated(*args: P.args, **kwargs: P.kwargs) -> R:
        with isolate_numerics():
            return function(*args, **kwargs)

    return isolated


def isolate_methods[C: type](decorated: C) -> C:
    """Make the public methods and properties of a class compute inside `isolate_numerics`."""
    for name, member in list(vars(decorated).items()):
        if name.startswith("_") and name != "_repr_html_":
            continue
        if isinstance(member, property) and member.fget is not None:
            setattr(decorated, name, property(isolate_call(member.fget), doc=member.__doc__))
        elif callable(member) and not isinstance(member, type):
            setattr(decorated, name, isolate_call(member))
    return decorated
