"""The command line. Heavy libraries are imported inside the commands.

argparse and plain print, because --help must answer at once: cyclopts and rich alone take longer than that to import.

Exit codes: 0 done; 1 the data, plan or model is wrong (one message, nothing written); 2 wrong usage, an option with
a value that it cannot take included;
3 a fit did not pass its own diagnosis, or one of several failed (results written and marked so); 130 stopped by Ctrl-C.
"""

import argparse
import gc
import os
import shlex
import sys
import unicodedata
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

from bayes_hte._support import validation
from bayes_hte.errors import ArgumentError, HteError

if TYPE_CHECKING:
    import pandas as pd

    from bayes_hte.analysis.plans.analysis import Analysis
    from bayes_hte.analysis.result import Fit
    from bayes_hte.analysis.run import PreparedPlan
    from bayes_hte.spec import Model

# argparse itself ends with 2 for wrong usage; 130 is 128 + SIGINT, as shells count.
EXIT_DATA_WRONG, EXIT_UNRELIABLE, EXIT_STOPPED = 1, 3, 130
DIM_STYLE, YELLOW_STYLE = "2", "33"
"""Parameters of the escape sequence that changes how a terminal writes (ECMA-48, Select Graphic Rendition)."""


class _ShowVersion(argparse.Action):
    """Print the version, looked up only when it is asked for: --help has no time for `importlib.metadata`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print the version of the installed package, and leave."""
        from bayes_hte import __version__

        print(f"bayes-hte {__version__}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of every command and option, with one line of help each."""
    top_parser = argparse.ArgumentParser(
        prog="bayes-hte",
        description="For whom does it work, and how sure are we? "
        "Bayesian hierarchical models of heterogeneous treatment effects.",
        epilog="exit codes: 0 done; 1 the data, plan or model is wrong; 2 wrong usage; "
        "3 a fit did not pass its own diagnosis, or one of several failed (results written and marked so)",
    )
    top_parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show program's version number and exit")
    subparsers = top_parser.add_subparsers(metavar="COMMAND", required=True)

    _add_run_arguments(
        _add_command(subparsers, "run", run_plan, "carry out a plan: report.html, effects.csv, summary.json, fit.nc")
    )

    command_parser = _add_command(
        subparsers, "aggregate", aggregate_data, "reduce the data to the cell table, and print it as CSV"
    )
    _add_plan_arguments(command_parser)
    command_parser.add_argument("--out", type=Path, metavar="FILE", help="write to a .csv or .json file instead")

    _add_register_arguments(
        _add_command(
            subparsers, "register", register_plan, "write what a plan declares to a lock file beside it, before a test"
        )
    )

    _add_plan_arguments(_add_command(subparsers, "check", check_plan, "validate plan, model and data, without fitting"))

    _add_init_arguments(
        _add_command(subparsers, "init", write_initial_plan, "write a commented plan, with what a data file lets guess")
    )

    _add_combine_arguments(
        _add_command(subparsers, "combine", combine_tests, "combine two tests of the same change, as run writes one")
    )

    command_parser = _add_command(
        subparsers, "show", show_model, "show a model as mathematics, in words and as PyMC text"
    )
    command_parser.add_argument("model", metavar="MODEL", help='a shipped name such as "conversion", or a model file')

    command_parser = _add_command(
        subparsers, "schema", print_schema, "print the JSON Schema of plan or model files, for editors"
    )
    command_parser.add_argument("kind", choices=("plan", "model"), help="what the files are")
    return top_parser


def _add_command(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    command_name: str,
    run_command: Callable[[Namespace], int],
    help_line: str,
) -> argparse.ArgumentParser:
    command_parser = subparsers.add_parser(
        command_name, help=help_line, description=f"{help_line[0].upper()}{help_line[1:]}."
    )
    command_parser.set_defaults(action=run_command)
    return command_parser


def _make_option_parser(check_number: Callable[[object], int]) -> Callable[[str], int]:
    """Make the function that argparse calls with an option's text: a whole number that passes the check."""

    def parse_number(option_text: str) -> int:
        number = int(option_text)
        try:
            return check_number(number)
        except ArgumentError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    parse_number.__name__ = "int"  # of text that is none argparse says "invalid int value"
    return parse_number


def _add_run_arguments(command_parser: argparse.ArgumentParser) -> None:
    _add_plan_arguments(command_parser)
    command_parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the results (default: results/<plan>)"
    )
    command_parser.add_argument(
        "--draws",
        type=_make_option_parser(validation.check_draw_count),
        metavar="N",
        help="posterior draws in all, in place of the plan's",
    )
    command_parser.add_argument(
        "--seed", type=_make_option_parser(validation.check_seed), metavar="N", help="seed, in place of the plan's"
    )
    command_parser.add_argument(
        "--no-report", action="store_true", help="leave out report.html, and remove that of an earlier run: faster"
    )
    command_parser.add_argument(
        "--excel",
        action="store_true",
        help="mark effects.csv as UTF-8, without which Excel misreads names with accents",
    )
    command_parser.add_argument("--quiet", action="store_true", help="show no progress")


def _add_register_arguments(command_parser: argparse.ArgumentParser) -> None:
    command_parser.add_argument("plan", type=Path, metavar="PLAN.toml", help="the plan file")
    command_parser.add_argument("--force", action="store_true", help="write anew where a lock is there already")


def _add_plan_arguments(command_parser: argparse.ArgumentParser) -> None:
    command_parser.add_argument("plan", type=Path, metavar="PLAN.toml", help="the plan file")
    command_parser.add_argument(
        "--data", type=Path, metavar="FILE", help="data file, or - for standard input, in place of the plan's data.path"
    )
    command_parser.add_argument("--drop-missing", action="store_true", help="drop units without a finite outcome")
    command_parser.add_argument("--json", action="store_true", help="print one JSON object for a program to read")


def _add_init_arguments(command_parser: argparse.ArgumentParser) -> None:
    command_parser.add_argument(
        "--from", dest="data", metavar="DATA", help="data file, folder, pattern, or - (default: a template)"
    )
    command_parser.add_argument(
        "--out", type=Path, metavar="PLAN.toml", default=Path("plan.toml"), help="file to write (default: plan.toml)"
    )
    command_parser.add_argument("--table", metavar="NAME", help="table of a database, or sheet of a workbook")
    command_parser.add_argument("--encoding", metavar="NAME", help="of a text file, such as latin-1 (default: UTF-8)")


def run_plan(arguments: Namespace) -> int:
    """Carry out the analysis that a plan describes."""
    plan_file: Path = arguments.plan
    quiet = arguments.quiet or arguments.json
    results_folder = arguments.out or Path("results") / _name_results_folder(plan_file)

    # The imports stand inside the stage: they take long enough for people to want to see what happens.
    with _time_stage("reading", quiet=quiet):
        from bayes_hte._support import csv_json
        from bayes_hte.analysis import export, run
        from bayes_hte.analysis.plans.analysis import Analysis

        _check_folder_writable(results_folder)
        options = run.RunOptions(drop_missing=arguments.drop_missing, draws=arguments.draws, seed=arguments.seed)
        prepared = run.prepare_plan(plan_file, data=arguments.data, options=options, counts_look=True)
        _show_questions(prepared, quiet=quiet)
    with _time_stage("fitting", quiet=quiet):
        fit = run.fit_prepared_plan(prepared, progress=False if quiet else None, command=_write_command(arguments))
    if isinstance(fit, Analysis):
        return _report_analysis(fit, results_folder, arguments)
    with _time_stage("reporting", quiet=quiet):
        result_tables = export.build_result_tables(fit)
        written_files = export.write_results(
            fit, results_folder, result_tables=result_tables, report=not arguments.no_report, excel=arguments.excel
        )
    if arguments.json:
        sys.stdout.write(csv_json.to_strict_json(export.build_summary(fit, result_tables)))
    else:
        _print_result(
            result_tables.brief_segment_table.to_string(
                index=False, max_rows=40, float_format=lambda number: f"{number:.3g}"
            ),
            "\n".join(
                [
                    *_list_fit_decisions(fit),
                    fit.engine,
                    f"diagnosis: {fit.diagnosis}",
                    *(f"note: {sentence}" for sentence in fit.diagnosis.notes),
                ]
            ),
            written_files,
        )
    return 0 if fit.diagnosis.ok else EXIT_UNRELIABLE


def _list_fit_decisions(fit: "Fit") -> list[str]:
    """List the decisions of a plan with a rule, with an empty line after them."""
    from bayes_hte.analysis import export
    from bayes_hte.decisions.decision_lines import list_decision_lines
    from bayes_hte.spec import cell_table

    decision_table = export.decide_by_plan(fit)
    if decision_table is None:
        return []
    return [*list_decision_lines(decision_table, [*cell_table.list_dimensions(fit.cells), "arm"]), ""]


def _report_analysis(analysis: "Analysis", results_folder: Path, arguments: Namespace) -> int:
    """Write and print the results of a plan with several questions."""
    from bayes_hte._support import csv_json
    from bayes_hte.analysis.plans import write_analysis

    with _time_stage("reporting", quiet=arguments.quiet or arguments.json):
        written_files = write_analysis.write_analysis(
            analysis, results_folder, report=not arguments.no_report, excel=arguments.excel
        )
    if arguments.json:
        sys.stdout.write(csv_json.to_strict_json(write_analysis.build_summary(analysis)))
    else:
        brief_table = write_analysis.tabulate_briefly(analysis)
        _print_result(
            brief_table.to_string(index=False, max_rows=60, float_format=lambda number: f"{number:.3g}"),
            "\n".join([*_list_analysis_decisions(analysis), *write_analysis.list_notes(analysis)]),
            written_files,
        )
    # A question that failed is as little to be relied on as a fit whose draws are wrong.
    return 0 if analysis.reliable else EXIT_UNRELIABLE


def _list_analysis_decisions(analysis: "Analysis") -> list[str]:
    """List the decisions over goals and guardrails of a plan with a rule, with an empty line after them."""
    from bayes_hte.decisions.decision_lines import list_decision_lines

    if analysis.plan.decision is None:
        return []
    return [*list_decision_lines(analysis.decide(), ["breakdown", "segment", "arm"]), ""]


def register_plan(arguments: Namespace) -> int:
    """Write what a plan declares to a lock file beside it."""
    from bayes_hte.analysis.plans.lock_files import register
    from bayes_hte.spec import read_plan
    from bayes_hte.spec.questions.registration import list_declaration_doubts

    lock_file = register(arguments.plan, force=arguments.force)
    for doubt in list_declaration_doubts(read_plan(arguments.plan)):
        _print_to_stderr(f"  note: {doubt}", YELLOW_STYLE, quiet=False)
    print(_replace_control_characters(f"written: {lock_file}; commit it before the data are looked at"))
    return 0


def _add_combine_arguments(command_parser: argparse.ArgumentParser) -> None:
    for role in ("first", "second"):
        command_parser.add_argument(
            role, type=Path, metavar=role.upper(), help="fit.nc of an earlier run, or a plan, which is carried out"
        )
    command_parser.add_argument(
        "--between-tests", type=float, metavar="SD", help="scale of the SD between tests, on the link scale"
    )
    command_parser.add_argument(
        "--names", nargs=2, default=("first", "second"), metavar="NAME", help="what the two tests are called"
    )
    command_parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("results") / "combined", help="folder for the results"
    )
    command_parser.add_argument("--no-report", action="store_true", help="leave out report.html: faster")
    command_parser.add_argument("--json", action="store_true", help="print one JSON object for a program to read")
    command_parser.add_argument("--quiet", action="store_true", help="show no progress")


def combine_tests(arguments: Namespace) -> int:
    """Combine two tests, given as saved fits or plans, and write the results as `run` does."""
    quiet = arguments.quiet or arguments.json
    with _time_stage("combining", quiet=quiet):
        from bayes_hte._support import csv_json
        from bayes_hte.analysis import export
        from bayes_hte.analysis.combine.combine_fits import combine, read_test

        _check_folder_writable(arguments.out)
        fit = combine(
            read_test(arguments.first),
            read_test(arguments.second),
            between_tests=arguments.between_tests,
            names=tuple(arguments.names),
        )
    with _time_stage("reporting", quiet=quiet):
        written_files = export.write_results(fit, arguments.out, report=not arguments.no_report)
    if arguments.json:
        sys.stdout.write(csv_json.to_strict_json(export.build_summary(fit)))
    else:
        comparison = fit.compare_tests()
        label_columns = list(comparison.columns[: list(comparison.columns).index("arm") + 1])
        shown_columns = [*label_columns, "first", "second", "p_differ", "disagree", "next_low", "next_high"]
        effects_text = comparison[shown_columns].to_string(
            index=False, max_rows=40, float_format=lambda number: f"{number:.3g}"
        )
        notes = [f"note: {sentence}" for sentence in fit.diagnosis.notes]
        _print_result(effects_text, "\n".join([fit.engine, f"diagnosis: {fit.diagnosis}", *notes]), written_files)
    return 0 if fit.diagnosis.ok else EXIT_UNRELIABLE


def _write_command(arguments: Namespace) -> str:
    """Write the command that gives the same numbers again; a connection URL, which may hold a password, is left out."""
    words = ["bayes-hte", "run", str(arguments.plan)]
    if arguments.data is not None:
        words += ["--data", "..." if ":/" in str(arguments.data) else str(arguments.data)]
    for option_name in ("draws", "seed"):
        if (number := getattr(arguments, option_name)) is not None:
            words += [f"--{option_name}", str(number)]
    return shlex.join(words + (["--drop-missing"] if arguments.drop_missing else []))


def _name_results_folder(plan_file: Path) -> str:
    """Name the folder of a plan's results: hillstrom/plan.toml is hillstrom, hillstrom/spend.toml hillstrom-spend."""
    folder = plan_file.resolve().parent.name or "plan"
    return folder if plan_file.stem == "plan" else f"{folder}-{plan_file.stem}"


def aggregate_data(arguments: Namespace) -> int:
    """Reduce the data to the cell table."""
    from bayes_hte._support.atomic_files import write_text_atomically
    from bayes_hte._support.csv_json import to_safe_csv, to_strict_json
    from bayes_hte.cells import from_plan
    from bayes_hte.spec.files import read_plan
    from bayes_hte.spec.questions.list_questions import asks_several

    plan = read_plan(arguments.plan)
    if asks_several(plan):
        cell_rows = _aggregate_questions(arguments)
    else:
        cells = from_plan.from_plan(
            plan, arguments.plan.parent, data=arguments.data, drop_missing=arguments.drop_missing
        )
        cell_rows = from_plan.tabulate_cells(cells)
    as_json = arguments.json or (arguments.out is not None and arguments.out.suffix == ".json")
    file_text = to_strict_json(cell_rows.to_dict(orient="records")) if as_json else to_safe_csv(cell_rows)
    # A pipe gets the file as it would be written; a terminal shows CR and control characters.
    if arguments.out is None:
        sys.stdout.write(
            _replace_control_characters(file_text.replace("\r\n", "\n")) if sys.stdout.isatty() else file_text
        )
    else:
        write_text_atomically(arguments.out, file_text)
    return 0


def _aggregate_questions(arguments: Namespace) -> "pd.DataFrame":
    """Reduce the data to the cells of every question, one table under the other."""
    from bayes_hte.analysis import run
    from bayes_hte.analysis.plans.describe_plan import tabulate_all_cells

    options = run.RunOptions(drop_missing=arguments.drop_missing)
    prepared = run.prepare_plan(arguments.plan, data=arguments.data, options=options)
    for title, reason in prepared.list_failures():
        _print_to_stderr(f"  note: {title} has no cells: {reason}", YELLOW_STYLE, quiet=False)
    return tabulate_all_cells({key: question.cells for key, question in prepared.questions.items()})


def check_plan(arguments: Namespace) -> int:
    """Validate a plan, its model and its data, without fitting."""
    from bayes_hte._support import csv_json
    from bayes_hte.analysis import run
    from bayes_hte.analysis.plans import describe_plan

    options = run.RunOptions(drop_missing=arguments.drop_missing)
    prepared = run.prepare_plan(arguments.plan, data=arguments.data, options=options)
    exit_code = EXIT_UNRELIABLE if prepared.failed else 0
    if arguments.json:
        sys.stdout.write(csv_json.to_strict_json(describe_plan.summarise_check(prepared)))
        return exit_code
    print(f"The plan, the model and the data fit together: {describe_plan.count_contents(prepared)}.")
    # What may make everything wrong comes first, then what is asked.
    warnings = describe_plan.list_plan_warnings(prepared)
    for line in (*(f"- {warning}" for warning in warnings), *_format_questions(prepared)):
        print(_replace_control_characters(line))
    return exit_code


def write_initial_plan(arguments: Namespace) -> int:
    """Write a plan with what can be guessed from a data file, or a template."""
    from bayes_hte.analysis.plan_proposal.init_plan import init_plan

    initial = init_plan(arguments.data, arguments.out, table=arguments.table, encoding=arguments.encoding)
    for line in initial.lines:
        print(_replace_control_characters(line))
    print(_replace_control_characters(f"written: {arguments.out}; next: bayes-hte check {arguments.out}"))
    return 0


def show_model(arguments: Namespace) -> int:
    """Show a model as mathematics, in words and as PyMC text."""
    from bayes_hte.spec import read_model

    print(_replace_control_characters(_format_model(read_model(arguments.model))))
    return 0


def print_schema(arguments: Namespace) -> int:
    """Print the JSON Schema of plan or model files."""
    from bayes_hte.spec.files import write_json_schema

    sys.stdout.write(write_json_schema(arguments.kind))
    return 0


def _format_model(model: "Model") -> str:
    from bayes_hte.model.text import describe, pymc_source

    text_lines = [model.title, *(f"    {line}" for line in describe.write_mathematics(model)), ""]
    text_lines += [*(f"- {line}" for line in describe.describe_model(model)), "", pymc_source.write_pymc_source(model)]
    return "\n".join(text_lines)


def _check_folder_writable(results_folder: Path) -> None:
    """Raise OutputError now, not after the fit, if the results cannot be written."""
    from bayes_hte.analysis.export import make_staging_folder

    make_staging_folder(results_folder).rmdir()


def _show_questions(prepared: "PreparedPlan", *, quiet: bool) -> None:
    """Print what is asked, and what is doubtful about the data, while there is time to stop."""
    from bayes_hte.analysis.plans.describe_plan import list_plan_warnings

    for question_line in _format_questions(prepared):
        _print_to_stderr(question_line, DIM_STYLE, quiet=quiet)
    for warning in list_plan_warnings(prepared):
        _print_to_stderr(f"  note: {warning}", YELLOW_STYLE, quiet=quiet)


def _format_questions(prepared: "PreparedPlan") -> Iterator[str]:
    from bayes_hte.analysis.plans.describe_plan import restate_questions

    for title, phrases in restate_questions(prepared):
        if title:
            yield title
        yield from (f"  {f'{name}:':<10}{phrase}" for name, phrase in phrases.items())


@contextmanager
def _time_stage(stage_name: str, *, quiet: bool) -> Iterator[None]:
    """Print the name of a stage to stderr, and at its end the seconds that it took."""
    start_time = perf_counter()
    _print_to_stderr(f"{stage_name} …", DIM_STYLE, quiet=quiet)
    yield
    _print_to_stderr(f"{stage_name}: {perf_counter() - start_time:.1f} s", DIM_STYLE, quiet=quiet)


def _print_to_stderr(message: str, style_code: str, *, quiet: bool) -> None:
    """Print a line to stderr, with a style where a person sees it and wants it (no-color.org)."""
    if quiet:
        return
    # Windows' old console prints escape sequences as they are.
    without_style = (
        not sys.stderr.isatty() or os.name == "nt" or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    )
    printable_message = _replace_control_characters(message)
    print(
        printable_message if without_style else f"\x1b[{style_code}m{printable_message}\x1b[0m",
        file=sys.stderr,
        flush=True,
    )


def _print_result(effects_text: str, diagnosis_text: str, written_files: list[Path]) -> None:
    print(_replace_control_characters(effects_text))
    print(_replace_control_characters(f"\n{diagnosis_text}"))
    print(_replace_control_characters("written:   " + ", ".join(str(written_file) for written_file in written_files)))


def main() -> NoReturn:
    """Run the command line, and turn what goes wrong into one message and an exit code."""
    arguments = build_parser().parse_args()
    try:
        exit_code = arguments.action(arguments)
        sys.stdout.flush()
    except HteError as hte_error:
        print(_replace_control_characters(f"error: {hte_error}").replace("\n", " "), file=sys.stderr)
        exit_code = EXIT_DATA_WRONG
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        # Python flushes stdout once more at the end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        exit_code = 0
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        exit_code = EXIT_STOPPED
    finally:
        _remove_input_copies()
    sys.exit(exit_code)


def _remove_input_copies() -> None:
    """Remove the copy of standard input, if there is one: a process that ends by os._exit cleans up nothing itself."""
    if "bayes_hte.cells.reading.files.standard_input" in sys.modules:
        from bayes_hte.cells.reading.files.standard_input import remove_copies

        remove_copies()


def script() -> NoReturn:
    """Run `main` as the installed command, whose process is its own and ends with the answer.

    Python spends 0.4 s on taking hundreds of modules apart before it ends, and 0.2 s on looking for reference
    cycles among the objects of imported modules. A process that ends anyway needs neither. Where Dask is installed,
    xarray imports it, which takes another 0.3 s, for arrays that this process, which reads files, never has; pandas
    imports PyArrow, 0.1 s, which only the sampler of `run` has a use for.
    """
    gc.set_threshold(500_000, 50, 50)  # imports make far more objects than Python's 2000, and all stay
    for package_name in ("dask", "pyarrow") if sys.argv[1:2] == ["aggregate"] else ("dask",):
        sys.modules[package_name] = None  # type: ignore[assignment]  # Python's own way to say that there is no such module
    # os._exit leaves out the taking apart of modules, but flushes nothing.
    try:
        main()
    except SystemExit as exit_request:
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_request.code if isinstance(exit_request.code, int) else 0)


def _replace_control_characters(message: str) -> str:
    """Replace control characters in a message: hostile names must not command the terminal."""
    # A space that keeps a number and its unit on one line is no command: it becomes a plain one.
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else " "
        if unicodedata.category(character) == "Zs"
        else "\N{REPLACEMENT CHARACTER}"
        for character in message
    )
