"""Measure where the code of a package lives and what it is called, against the goals for both.

    python benchmarks/house.py                                  bayes_hte, as a Markdown table
    python benchmarks/house.py --exclude inference/exact        the same, and without that folder
    python benchmarks/house.py --list participle_functions      what counts in a measure, and where it stands
    python benchmarks/house.py path/to/package --json           another package, for programs

What is counted stands in the comments below; it was chosen to give the numbers of the review that set the goals.
No number tells a good name from a bad one: two words may say as little as one.
"""

import argparse
import ast
import io
import json
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

DEFAULT_PACKAGE = Path(__file__).resolve().parent.parent / "bayes_hte"
# The goal counts these four, so all files of the folder are counted; those that are not named here are findings.
ALLOWED_ON_TOP = frozenset({"__init__.py", "errors.py", "cli.py", "py.typed"})
# Folders in a folder are counted for themselves: a package of many rooms is no fault, a room of many modules is.
MAX_ENTRIES = 10
MAX_FILE_LINES = 400
# Of the body without its docstring: signatures and their descriptions are long where there are many options.
MAX_BODY_LINES = 60
# Per 100 lines of a file, empty ones and docstrings included; comments behind code count too. Others have 1.3 to 6.8.
MIN_COMMENTS = 3.0

# A word ends at an underscore or before a capital (LinearMap has two); digits belong to the word before.
WORD_PATTERN = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z][A-Z0-9]*|[0-9]+")
# An assignment to a name in CapWords is an alias, as `type X = ...` is.
TYPE_NAME_PATTERN = re.compile(r"_*[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")
# Instructions to tools explain nothing, unless a reason follows: then the pattern does not match the whole comment.
DIRECTIVE_PATTERN = re.compile(
    r"(#\s*(noqa(:\s*\w+(,\s*[A-Z]+\d+)*)?|type:\s*ignore(\[[\w, -]+\])?|(fmt|pragma|ruff|mypy|pyright|pylint):.*)\s*)+"
)

# Past participles only: present ones are often nouns (binning), and count as names of one word.
# Forms that are base forms too (put, read, set, split, run, cut, cast, come) are left out: they may be verbs.
IRREGULAR_PARTICIPLES = frozenset({
    "begun", "bent", "borne", "bought", "bound", "broken", "brought", "built", "caught", "chosen", "dealt", "done",
    "drawn", "driven", "fallen", "fed", "felt", "forgotten", "found", "frozen", "given", "gone", "got", "grown",
    "heard", "held", "hidden", "kept", "known", "laid", "learnt", "led", "left", "lent", "lost", "made", "meant", "met",
    "paid", "proven", "rebuilt", "redone", "redrawn", "rewritten", "risen", "said", "seen", "sent", "shown", "shrunk",
    "sold", "sought", "spent", "spoken", "stood", "struck", "stuck", "sunk", "swept", "taken", "taught", "thought",
    "thrown", "told", "undone", "understood", "unknown", "withdrawn", "withheld", "won", "worn", "wound", "written",
})  # fmt: skip
# All other words in -ed are taken for participles.
NOT_PARTICIPLES = frozenset({
    "bed", "breed", "embed", "exceed", "feed", "hundred", "indeed", "need", "proceed", "red", "reseed", "seed", "shed",
    "shred", "speed", "succeed", "weed",
})  # fmt: skip
# Words of the closed classes: none of them is a verb.
OPENINGS_WITHOUT_VERB = frozenset({
    "a", "an", "the", "how", "what", "when", "where", "whether", "which", "who", "whose", "why", "about", "above",
    "after", "against", "among", "as", "at", "before", "below", "between", "beyond", "by", "for", "from", "in", "into",
    "of", "on", "over", "per", "through", "to", "under", "with", "within", "without", "all", "any", "both", "each",
    "either", "every", "everything", "here", "if", "it", "itself", "many", "more", "most", "neither", "no", "none",
    "one", "only", "same", "several", "some", "such", "that", "there", "these", "this", "those", "three", "too", "two",
})  # fmt: skip

type FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Finding(NamedTuple):
    """Point at a place that counts in a measure."""

    file: str
    line: int
    remark: str


@dataclass(frozen=True, slots=True)
class Measure:
    """Hold one row of the table: a number, its goal, and the places behind it."""

    title: str
    value: float
    goal: float
    findings: tuple[Finding, ...]
    unit: str = ""
    at_least: bool = False

    def meets_goal(self) -> bool:
        """Tell whether the number is on the right side of its goal."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def format_value(self) -> str:
        """Write the number with its unit."""
        return f"{self.value:.1f}{self.unit}" if isinstance(self.value, float) else str(self.value)

    def format_goal(self) -> str:
        """Write the goal as a bound."""
        return f"{'≥' if self.at_least else '≤'} {self.goal:g}{self.unit}"

    def describe_numbers(self) -> dict[str, float]:
        """Give value and goal, whether it is met, and how many findings there are."""
        return {"value": self.value, "goal": self.goal, "met": self.meets_goal(), "findings": len(self.findings)}


class SourceFile(NamedTuple):
    """Hold a module, read and parsed; its path starts in the package's folder."""

    path: str
    source_lines: tuple[str, ...]
    syntax_tree: ast.Module

    def point_at(self, line: int, remark: str) -> Finding:
        """Make a finding in this file."""
        return Finding(self.path, line, remark)


class PackageSources(NamedTuple):
    """Hold the paths of a package's files from its folder, and its modules."""

    file_paths: tuple[Path, ...]
    modules: tuple[SourceFile, ...]


def parse_module(package: Path, path: Path) -> SourceFile:
    """Read and parse one module."""
    source_text = (package / path).read_text(encoding="utf-8")
    return SourceFile(path.as_posix(), tuple(source_text.splitlines(keepends=True)), ast.parse(source_text))


def read_package(package: Path, excluded: Sequence[str] = ()) -> PackageSources:
    """Read a package's files but those in excluded folders, which are given from the package's folder."""
    paths = (path.relative_to(package) for path in sorted(package.rglob("*")) if path.is_file())
    kept = tuple(path for path in paths if path.suffix != ".pyc" and not any(map(path.is_relative_to, excluded)))
    return PackageSources(kept, tuple(parse_module(package, path) for path in kept if path.suffix == ".py"))


def calculate_share(part: int, whole: int) -> float:
    """Express a part in per cent; 0 of nothing."""
    return 100 * part / whole if whole else 0.0


def has_one_word(name: str) -> bool:
    """Tell whether an identifier has a single word; one in other letters than Latin ones counts as such."""
    return len(WORD_PATTERN.findall(name.strip("_"))) <= 1


def is_prescribed(name: str) -> bool:
    """Recognise names that Python or habit prescribes."""
    return name in {"self", "cls", "_"} or (name.startswith("__") and name.endswith("__"))


def is_participle(word: str) -> bool:
    """Recognise past participles, in lower case: told, settled, learnt; names of several words are none."""
    return word in IRREGULAR_PARTICIPLES or (word.endswith("ed") and word.isalpha() and word not in NOT_PARTICIPLES)


def find_functions(sources: PackageSources, *, nested: bool) -> Iterator[tuple[SourceFile, FunctionNode]]:
    """Yield the functions of modules, and with nested=True methods and functions in functions."""
    for module in sources.modules:
        for node in ast.walk(module.syntax_tree) if nested else module.syntax_tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, node


def find_module_functions(sources: PackageSources) -> list[tuple[Finding, str]]:
    """List functions of modules, without those that Python prescribes: where they stand, and their bare names."""
    return [
        (module.point_at(node.lineno, node.name), node.name.strip("_"))
        for module, node in find_functions(sources, nested=False)
        if not is_prescribed(node.name)
    ]


def find_definitions(module: SourceFile) -> Iterator[tuple[str, Finding]]:
    """Yield the kinds and names that a module defines, at any depth; imports define nothing."""
    for node in ast.walk(module.syntax_tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                kind = "function"
            case ast.ClassDef(name=name):
                kind = "type"
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                kind = "type" if TYPE_NAME_PATTERN.fullmatch(name) else "variable"
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                kind = "variable"
            case _:
                continue
        if not is_prescribed(name):
            yield kind, module.point_at(node.lineno, name)


def find_types(module: SourceFile) -> Iterator[Finding]:
    """Yield the classes and aliases that stand at the level of a module."""
    for node in module.syntax_tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.TypeAlias(name=ast.Name(id=name)):
                yield module.point_at(node.lineno, name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if TYPE_NAME_PATTERN.fullmatch(name):
                    yield module.point_at(node.lineno, name)


def measure_loose_modules(sources: PackageSources) -> Measure:
    """Count modules and markers in the package's own folder; the findings are those that may not stay there."""
    loose_files = [path for path in sources.file_paths if path.parent == Path() and path.suffix in {".py", ".typed"}]
    findings = tuple(Finding(path.name, 1, "loose") for path in loose_files if path.name not in ALLOWED_ON_TOP)
    return Measure("modules loose at the package's top", len(loose_files), len(ALLOWED_ON_TOP), findings)


def measure_widest_folder(sources: PackageSources) -> Measure:
    """Count the files of the folder that has most; the findings are all folders that have more than the goal."""
    folder_widths = Counter(path.parent for path in sources.file_paths if path.name not in {"__init__.py", "py.typed"})
    findings = tuple(
        Finding((folder / "__init__.py").as_posix(), 1, f"{width} entries in this folder")
        for folder, width in folder_widths.most_common()
        if width > MAX_ENTRIES
    )
    return Measure("entries in the widest folder", max(folder_widths.values(), default=0), MAX_ENTRIES, findings)


def measure_one_word_identifiers(sources: PackageSources) -> Measure:
    """Calculate the share of one-word names among those defined; the most often defined are found first."""
    # Once per kind, however often a name is defined: a few names that are everywhere would hide all others.
    definitions: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for module in sources.modules:
        for kind, finding in find_definitions(module):
            definitions[kind, finding.remark.strip("_")].append(finding)
    findings = tuple(
        definitions[key][0]._replace(remark=f"{key[1]} ({key[0]}, defined {len(definitions[key])} times)")
        for key in sorted(definitions, key=lambda key: -len(definitions[key]))
        if has_one_word(key[1])
    )
    share = calculate_share(len(findings), len(definitions))
    return Measure("identifiers of one word", share, 50, findings, unit=" %")


def measure_one_word_functions(sources: PackageSources) -> Measure:
    """Calculate the share of one-word names among functions of modules."""
    functions = find_module_functions(sources)
    findings = tuple(finding for finding, name in functions if has_one_word(name))
    share = calculate_share(len(findings), len(functions))
    return Measure("module-level functions with a one-word name", share, 25, findings, unit=" %")


def measure_participle_functions(sources: PackageSources) -> Measure:
    """Count functions of modules whose name is a participle and nothing else."""
    findings = tuple(finding for finding, name in find_module_functions(sources) if is_participle(name))
    return Measure("… that are a bare participle", len(findings), 0, findings)


def measure_duplicate_types(sources: PackageSources) -> Measure:
    """Count names of classes and aliases that several modules define."""
    places_by_name: dict[str, dict[str, Finding]] = defaultdict(dict)
    for module in sources.modules:
        for finding in find_types(module):
            places_by_name[finding.remark.strip("_")][module.path] = finding
    repeated_names = [places for places in places_by_name.values() if len(places) > 1]
    findings = tuple(finding for places in repeated_names for finding in places.values())
    return Measure("class or alias names defined twice or more", len(repeated_names), 0, findings)


def count_comments(module: SourceFile, *, directives: bool) -> int:
    """Count the comments of a module, with or without directives for tools."""
    tokens = tokenize.generate_tokens(io.StringIO("".join(module.source_lines)).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return sum(directives or not DIRECTIVE_PATTERN.fullmatch(comment) for comment in comments)


def measure_comments(sources: PackageSources, *, title: str, directives: bool) -> Measure:
    """Calculate comments per 100 lines; the findings are files below the goal, the longest first."""
    findings, comment_count, line_count = [], 0, 0
    for module in sorted(sources.modules, key=lambda module: -len(module.source_lines)):
        comments, lines = count_comments(module, directives=directives), len(module.source_lines)
        comment_count, line_count = comment_count + comments, line_count + lines
        if 100 * comments < MIN_COMMENTS * lines:
            findings.append(module.point_at(1, f"{comments} in {lines} lines"))
    return Measure(title, calculate_share(comment_count, line_count), MIN_COMMENTS, tuple(findings), at_least=True)


def measure_long_files(sources: PackageSources) -> Measure:
    """Count modules with more lines than MAX_FILE_LINES."""
    long_files = [module for module in sources.modules if len(module.source_lines) > MAX_FILE_LINES]
    findings = tuple(module.point_at(1, f"{len(module.source_lines)} lines") for module in long_files)
    return Measure(f"files over {MAX_FILE_LINES} lines", len(findings), 0, findings)


def count_body_lines(function: FunctionNode) -> int:
    """Count the lines of a function's body without its docstring."""
    body = function.body if ast.get_docstring(function) is None else function.body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def measure_long_functions(sources: PackageSources) -> Measure:
    """Count functions whose body has more lines than MAX_BODY_LINES."""
    findings = tuple(
        module.point_at(node.lineno, f"{node.name}: {length} lines")
        for module, node in find_functions(sources, nested=True)
        if (length := count_body_lines(node)) > MAX_BODY_LINES
    )
    return Measure(f"functions over {MAX_BODY_LINES} lines", len(findings), 0, findings)


def lacks_verb(docstring: str) -> bool:
    """Tell whether a docstring opens with what cannot be an imperative verb."""
    # Nouns in the singular escape: telling "Mean of" from "Read it" needs a dictionary.
    first_word = re.split(r"[\s,.:;]", docstring, maxsplit=1)[0]
    lowered = first_word.lower()
    is_plural = lowered.endswith("s") and not lowered.endswith("ss") and lowered != "focus"
    return not first_word[:1].isupper() or lowered in OPENINGS_WITHOUT_VERB or is_plural or is_participle(lowered)


def is_property(function: FunctionNode) -> bool:
    """Recognise properties, cached ones included."""
    return any(ast.unparse(decorator).endswith("property") for decorator in function.decorator_list)


def measure_docstring_openings(sources: PackageSources) -> Measure:
    """Count functions whose docstring does not open with a verb."""
    findings = tuple(
        module.point_at(node.lineno, f"{node.name}: {docstring.splitlines()[0]}")
        for module, node in find_functions(sources, nested=True)
        # Properties are values, and may be described by nouns.
        if (docstring := ast.get_docstring(node)) and not is_property(node) and lacks_verb(docstring)
    )
    return Measure("function docstrings that open without a verb", len(findings), 0, findings)


MEASURES: dict[str, Callable[[PackageSources], Measure]] = {
    "loose_modules": measure_loose_modules,
    "widest_folder": measure_widest_folder,
    "one_word_identifiers": measure_one_word_identifiers,
    "one_word_functions": measure_one_word_functions,
    "participle_functions": measure_participle_functions,
    "duplicate_types": measure_duplicate_types,
    "comment_lines": partial(measure_comments, title="comment lines per 100", directives=True),
    "explaining_comments": partial(measure_comments, title="… that are not directives for tools", directives=False),
    "long_files": measure_long_files,
    "long_functions": measure_long_functions,
    "docstring_openings": measure_docstring_openings,
}


def measure_package(package: Path = DEFAULT_PACKAGE, excluded: Sequence[str] = ()) -> dict[str, Measure]:
    """Measure a package folder, without the excluded folders in it."""
    sources = read_package(package, excluded)
    return {key: measure(sources) for key, measure in MEASURES.items()}


def format_table(scopes: Mapping[str, Mapping[str, Measure]]) -> str:
    """Write measures as a Markdown table with one column of values per scope of the measurement."""
    table_rows = [["measure", *scopes, "goal"], ["---"] * (len(scopes) + 2)]
    for key in MEASURES:
        measures = [scope[key] for scope in scopes.values()]
        table_rows.append([measures[0].title, *map(Measure.format_value, measures), measures[0].format_goal()])
    return "\n".join(f"| {' | '.join(row)} |" for row in table_rows)


def format_json(scopes: Mapping[str, Mapping[str, Measure]]) -> str:
    """Write measures as JSON, scope by scope."""
    record = {scope: {key: row.describe_numbers() for key, row in rows.items()} for scope, rows in scopes.items()}
    return json.dumps(record, indent=2, ensure_ascii=False)


def format_findings(package: Path, measure: Measure) -> str:
    """Write the places behind a measure, one per line, as editors and terminals can open them."""
    return "\n".join(f"{package / file}:{line}: {remark}" for file, line, remark in measure.findings)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure the layout and the names of a package against their goals.")
    parser.add_argument("package", nargs="?", type=Path, default=DEFAULT_PACKAGE, help="folder; default: bayes_hte")
    parser.add_argument("--exclude", action="append", default=[], metavar="FOLDER", help="measure without it too")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a Markdown table")
    parser.add_argument("--list", choices=MEASURES, metavar="MEASURE", help=f"print findings: {', '.join(MEASURES)}")
    options = parser.parse_args()
    for folder in (options.package, *(options.package / name for name in options.exclude)):
        if not folder.is_dir():
            parser.error(f"there is no folder {folder}")
    return options


def main() -> None:
    """Print what the command line asks for."""
    options = parse_arguments()
    scopes = {"value": measure_package(options.package)}
    if options.exclude:
        scopes[f"without {', '.join(options.exclude)}"] = measure_package(options.package, options.exclude)
    if options.list:
        # The last scope is the narrowest: who excludes a folder does not want its findings.
        print(format_findings(options.package, list(scopes.values())[-1][options.list]))
    else:
        print(format_json(scopes) if options.json else format_table(scopes))


if __name__ == "__main__":
    main()
