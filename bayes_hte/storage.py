"""Writing files all or nothing: a temporary file beside the target, then a rename."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bayes_hte.errors import OutputError


def write(path: Path, writer: Callable[[Path], object]) -> Path:
    """Let `writer` fill a temporary file beside `path`, then rename it: never half a file.

    Raises
    ------
    OutputError
        If the folder or file cannot be written.
    """
    temporary: Path | None = None
    new = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        writer(temporary)
        temporary.chmod(0o644)
        return temporary.replace(path)
    except OSError as problem:
        raise OutputError(f"{path} cannot be written: {problem.strerror or problem}") from problem
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        for folder in new:  # the innermost first; what is not empty holds the file, or somebody else's
            with suppress(OSError):
                folder.rmdir()


def write_text(path: Path, text: str) -> Path:
    """Write a text file, all or nothing."""
    return write(path, lambda target: target.write_text(text, encoding="utf-8", newline=""))
