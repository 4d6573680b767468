"""Writing files all or nothing: a temporary file beside the target, then a rename."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bayes_hte.errors import OutputError


def write_file_atomically(target_path: Path, write_content: Callable[[Path], object]) -> Path:
    """Let `write_content` fill a temporary file beside `target_path`, then rename it: never half a file.

    Raises
    ------
    OutputError
        If the folder or file cannot be written.
    """
    temporary_path: Path | None = None
    new_folders = [folder for folder in target_path.absolute().parents if not folder.exists()]
    try:
        target_path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, as a rename is atomic only within one disk.
        file_descriptor, temporary_name = tempfile.mkstemp(
            dir=target_path.parent, prefix=f".{target_path.stem}-", suffix=target_path.suffix
        )
        os.close(file_descriptor)
        temporary_path = Path(temporary_name)
        write_content(temporary_path)
        temporary_path.chmod(0o644)  # mkstemp lets nobody but the owner read: results are to be shared
        return temporary_path.replace(target_path)
    except OSError as os_error:
        raise OutputError(f"{target_path} cannot be written: {os_error.strerror or os_error}") from os_error
    finally:
        if temporary_path is not None:
            temporary_path.unlink(missing_ok=True)
        for folder in new_folders:  # the innermost first; what is not empty holds the file, or somebody else's
            with suppress(OSError):
                folder.rmdir()


def write_text_atomically(target_path: Path, text: str) -> Path:
    """Write a text file, all or nothing."""
    return write_file_atomically(
        target_path, lambda temporary_path: temporary_path.write_text(text, encoding="utf-8", newline="")
    )
