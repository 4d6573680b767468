"""Show people how far a long task is: one bar on standard error, nothing for programs."""

from collections.abc import Iterable, Iterator


def track_progress[T](results: Iterable[T], result_count: int, *, shows_bar: bool | None) -> Iterator[T]:
    """Pass results on as they come, with a progress bar for people.

    Parameters
    ----------
    results : iterable
        Computed one by one.
    result_count : int
    shows_bar : bool or None
        None shows it where standard error is a terminal.
    """
    # rich takes longer to import than --help may take.
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    is_hidden = not (console.is_terminal if shows_bar is None else shows_bar)
    yield from track(results, "fitting", total=result_count, console=console, disable=is_hidden)
