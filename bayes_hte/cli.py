"""The command line: run, aggregate, check, show. Heavy libraries are imported inside the commands.

argparse and plain print, because --help must answer at once: cyclopts and rich alone take longer than that to import.

Exit codes: 0 done; 1 the data, plan or model is wrong (one message, nothing written); 2 wrong usage;
3 the fit did not pass its own diagnosis (results written and marked so); 130 stopped by Ctrl-C.
"""

import argparse
import gc
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

from bayes_hte import __version__

if TYPE_CHECKING:
    from bayes_hte.analysis import Prepared
    from bayes_hte.spec import Model

DATA_WRONG, UNRELIABLE, STOPPED = 1, 3, 130
DIM, YELLOW = "2", "33"
"""How a terminal is asked for a look (ECMA-48)."""


def parser() -> argparse.ArgumentParser:
    """Every command and option, with one line of help each."""
    top = argparse.ArgumentParser(
        prog="bayes-hte",
        description="For whom does it work, and how sure are we? "
        "Bayesian hierarchical models of heterogeneous treatment effects.",
        epilog="exit codes: 0 done; 1 the data, plan or model is wrong; 2 wrong usage; "
        "3 the fit did not pass its own diagnosis (results written and marked so)",
    )
    top.add_argument("--version", action="version", version=f"bayes-hte {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    one = _command(commands, "run", run, "carry out a plan: report.html, effects.csv, summary.json, fit.nc")
    _add_plan(one)
    one.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (default: results/<plan>)")
    one.add_argument("--draws", type=int, metavar="N", help="posterior draws in all, in place of the plan's")
    one.add_argument("--seed", type=int, metavar="N", help="seed, in place of the plan's")
    one.add_argument(
        "--no-report", action="store_true", help="leave out report.html, and remove that of an earlier run: faster"
    )
    one.add_argument("--quiet", action="store_true", help="show no progress")

    one = _command(commands, "aggregate", aggregate, "reduce the data to the cell table, and print it as CSV")
    _add_plan(one)
    one.add_argument("--out", type=Path, metavar="FILE", help="write to a .csv or .json file instead")

    _add_plan(_command(commands, "check", check, "validate plan, model and data, without fitting"))

    one = _command(commands, "show", show, "show a model as mathematics, in words and as PyMC text")
    one.add_argument("model", metavar="MODEL", help='a shipped name such as "conversion", or a model file')
    return top


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    action: Callable[[Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    found = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    found.set_defaults(action=action)
    return found


def _add_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument("plan", type=Path, metavar="PLAN.toml", help="the plan file")
    command.add_argument("--data", type=Path, metavar="FILE", help="CSV or Parquet, in place of the plan's data.path")
    command.add_argument("--drop-missing", action="store_true", help="drop units without a finite outcome")
    command.add_argument("--json", action="store_true", help="print one JSON object for a program to read")


def run(asked: Namespace) -> int:
    """Carry out the analysis that a plan describes."""
    plan: Path = asked.plan
    quiet = asked.quiet or asked.json
    folder = asked.out or Path("results") / _name(plan)

    with _stage("reading", quiet=quiet):
        from bayes_hte import analysis, export, formats

        _probe(folder)
        prepared = analysis.prepare(plan, data=asked.data, drop_missing=asked.drop_missing)
        _show_warnings(prepared, quiet=quiet)
    with _stage("fitting", quiet=quiet):
        fit = analysis.answer(prepared, draws=asked.draws, seed=asked.seed, progress=False if quiet else None)
    with _stage("reporting", quiet=quiet):
        found = export.answers(fit)
        written = export.write_results(fit, folder, found=found, report=not asked.no_report)
    if asked.json:
        sys.stdout.write(formats.to_json(export.summary(fit, found)))
    else:
        _print_result(
            found.brief.to_string(index=False, max_rows=40, float_format=lambda x: f"{x:.3g}"),
            f"{fit.engine}\ndiagnosis: {fit.diagnosis}",
            written,
        )
    return 0 if fit.diagnosis.ok else UNRELIABLE


def _name(plan: Path) -> str:
    """examples/hillstrom/plan.toml is hillstrom, examples/hillstrom/spend.toml is hillstrom-spend."""
    folder = plan.resolve().parent.name or "plan"
    return folder if plan.stem == "plan" else f"{folder}-{plan.stem}"


def aggregate(asked: Namespace) -> int:
    """Reduce the data to the cell table."""
    from bayes_hte import planned
    from bayes_hte.formats import to_csv, to_json
    from bayes_hte.spec.files import read_plan
    from bayes_hte.storage import write_text

    plan = read_plan(asked.plan)
    cells = planned.aggregate(plan, asked.plan.parent, data=asked.data, drop_missing=asked.drop_missing)
    frame = planned.cell_frame(cells)
    as_json = asked.json or (asked.out is not None and asked.out.suffix == ".json")
    text = to_json(frame.to_dict(orient="records")) if as_json else to_csv(frame)
    if asked.out is None:
        sys.stdout.write(_printable(text.replace("\r\n", "\n")) if sys.stdout.isatty() else text)
    else:
        write_text(asked.out, text)
    return 0


def check(asked: Namespace) -> int:
    """Validate a plan, its model and its data, without fitting."""
    from bayes_hte import analysis, formats
    from bayes_hte import cells as cell_tables

    prepared = analysis.prepare(asked.plan, data=asked.data, drop_missing=asked.drop_missing)
    warnings, sizes = list(cell_tables.check(prepared.cells)), prepared.cells.sizes
    if asked.json:
        found = {"ok": True, "segments": sizes["segment"], "arms": sizes["arm"], "warnings": warnings}
        sys.stdout.write(formats.to_json(found))
        return 0
    segments = f"{sizes['segment']} segment{'s' * (sizes['segment'] != 1)}"
    arms = f"{sizes['arm']} arm{'s' * (sizes['arm'] != 1)}"
    print(f"The plan, the model and the data fit together: {segments}, {arms}.")
    for warning in warnings:
        print(_printable(f"- {warning}"))
    return 0


def show(asked: Namespace) -> int:
    """Show a model as mathematics, in words and as PyMC text."""
    from bayes_hte.spec import read_model

    print(_printable(_model_text(read_model(asked.model))))
    return 0


def _model_text(model: "Model") -> str:
    from bayes_hte import source, words

    parts = [model.title, *(f"    {line}" for line in words.mathematics(model)), ""]
    parts += [*(f"- {line}" for line in words.sentences(model)), "", source.pymc_text(model)]
    return "\n".join(parts)


def _probe(folder: Path) -> None:
    """Find out now, not after the fit, that the results cannot be written."""
    from bayes_hte.export import reserve

    reserve(folder).rmdir()


def _show_warnings(prepared: "Prepared", *, quiet: bool) -> None:
    from bayes_hte import cells as cell_tables

    for warning in cell_tables.check(prepared.cells):
        _say(f"  note: {warning}", YELLOW, quiet=quiet)


@contextmanager
def _stage(name: str, *, quiet: bool) -> Iterator[None]:
    """One line per step on stderr: what is done, and how long it took."""
    begun = perf_counter()
    _say(f"{name} …", DIM, quiet=quiet)
    yield
    _say(f"{name}: {perf_counter() - begun:.1f} s", DIM, quiet=quiet)


def _say(line: str, look: str, *, quiet: bool) -> None:
    """A line on stderr; with a look where somebody sees it and wants it (no-color.org)."""
    if quiet:
        return
    plain = not sys.stderr.isatty() or os.name == "nt" or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    text = _printable(line)
    print(text if plain else f"\x1b[{look}m{text}\x1b[0m", file=sys.stderr, flush=True)


def _print_result(table: str, verdict: str, written: list[Path]) -> None:
    print(_printable(table))
    print(_printable(f"\n{verdict}"))
    print(_printable("written:   " + ", ".join(str(path) for path in written)))


def main() -> NoReturn:
    """Run the command line, and turn what goes wrong into one message and an exit code."""
    asked = parser().parse_args()
    from bayes_hte.errors import HteError

    try:
        code = asked.action(asked)
        sys.stdout.flush()
    except HteError as problem:
        print(_printable(f"error: {problem}").replace("\n", " "), file=sys.stderr)
        code = DATA_WRONG
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        code = STOPPED
    sys.exit(code)


def script() -> NoReturn:
    """`main` as the installed command: the process is its own, and ends with the answer.

    Python spends 0.4 s on taking hundreds of modules apart before it ends, and 0.2 s on looking for reference
    cycles among the objects of imported modules. A process that ends anyway needs neither. Where Dask is installed,
    xarray imports it, which takes another 0.3 s, for arrays that this process, which reads files, never has; pandas
    imports PyArrow, 0.1 s, which only the sampler of `run` has a use for.
    """
    gc.set_threshold(500_000, 50, 50)
    for package in ("dask", "pyarrow") if sys.argv[1:2] == ["aggregate"] else ("dask",):
        sys.modules[package] = None  # type: ignore[assignment]  # Python's own way to say that there is no such module
    try:
        main()
    except SystemExit as stop:
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 0)


def _printable(message: str) -> str:
    """Control characters in hostile names must not reach the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in message)
