"""Reading plan and model files: TOML, a closed schema, and errors that name the way out. Runs no code."""

import hashlib
import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from bayes_hte.asked import described, path_of
from bayes_hte.errors import ModelError, PlanError, SpecError
from bayes_hte.spec.plan import Plan
from bayes_hte.spec.sentences import sentences

if TYPE_CHECKING:
    from bayes_hte.spec.model import Model

_PACKAGE = Path(__file__).resolve().parent.parent
MAX_BYTES = 1_000_000
"""A plan or model is a page of text; anything longer is another file given by mistake."""


def models_folder() -> Path:
    """Where the shipped models are: inside a wheel, or beside the package in a checkout."""
    packaged = _PACKAGE / "_models"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "models"


def shipped_models() -> list[str]:
    """Names that `read_model` knows without a path.

    Examples
    --------
    >>> from bayes_hte.spec import shipped_models
    >>> "conversion" in shipped_models()
    True
    """
    return sorted(path.stem for path in models_folder().glob("*.toml"))


def model_path(source: str | Path, folder: Path | None = None) -> Path:
    """The file of a model: a shipped name, or a path relative to `folder`."""
    if not isinstance(source, str | os.PathLike):
        raise ModelError(
            f"{described(source)} is no model; give the path of a .toml file, a Model made with hte.Model(family=…), "
            f"or one of the shipped {shipped_models()}"
        )
    if str(source) in shipped_models():
        return models_folder() / f"{source}.toml"
    path = (folder or Path()) / source
    if path.suffix != ".toml":
        close = get_close_matches(str(source), shipped_models(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ModelError(
            f"no model {str(source)!r}{hint} Shipped are {shipped_models()}; a model of yours is a .toml file"
        )
    return path


def read_model(source: str | Path) -> "Model":
    """Read a model: one of the shipped ones by name, or your own file by path.

    Parameters
    ----------
    source : str or Path
        A name such as ``"conversion"``, or the path of a ``.toml`` file.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        If there is no such model, or the file is not valid; the message names the key.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> hte.read_model("conversion").family
    'binomial'
    """
    from bayes_hte.spec.model import Model

    return parse(model_path(source), Model, ModelError)


def read_plan(path: str | Path) -> Plan:
    """Read a plan file.

    Parameters
    ----------
    path : str or Path
        A ``.toml`` file.

    Returns
    -------
    Plan

    Raises
    ------
    PlanError
        If the file is missing or not valid; the message names the key.
    """
    return parse(path_of(path, "the plan", PlanError), Plan, PlanError)


def parse[T: BaseModel](path: Path, kind: type[T], error: type[SpecError]) -> T:
    """Validate one TOML file against its schema."""
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_BYTES else ""
    except FileNotFoundError:
        raise error(f"no file {path}; the folder has {_neighbours(path)}") from None
    except (OSError, ValueError) as problem:  # also no UTF-8, and NUL in the path
        raise error(f"{path} cannot be read: {problem}") from problem
    if size > MAX_BYTES:
        raise error(f"{path} has {size:,} bytes; a {kind.__name__.lower()} file is a page of text")
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as problem:  # also a number of 5,000 digits, and 10,000 brackets
        raise error(f"{path} is not valid TOML: {problem}") from problem
    return validate(content, kind, error, where=str(path))


def validate[T: BaseModel](content: dict[str, Any], kind: type[T], error: type[SpecError], *, where: str) -> T:
    """Build the value, turning pydantic's report into sentences."""
    try:
        return kind.model_validate(content)
    except ValidationError as problem:
        raise error(f"{where}: " + "; ".join(sentences(problem.errors(), kind, content))) from None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _neighbours(path: Path) -> str:
    found = sorted(item.name for item in path.parent.glob("*.toml")) if path.parent.is_dir() else []
    return ", ".join(found) if found else "no .toml files"
