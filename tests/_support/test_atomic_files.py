"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from bayes_hte import OutputError
from bayes_hte._support.atomic_files import write_file_atomically, write_text_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folders_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "x.txt"
    assert write_text_atomically(target, "é\r\n\N{GREEK SMALL LETTER TAU}") == target
    assert target.read_bytes() == "é\r\nτ".encode()
    assert names(target.parent) == ["x.txt"]


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    assert write_text_atomically(tmp_path / "x.txt", "x").stat().st_mode & 0o777 == 0o644


def test_a_file_is_replaced_only_when_the_new_one_is_complete(tmp_path: Path) -> None:
    target = write_text_atomically(tmp_path / "x.txt", "old")

    def halfway(path: Path) -> None:
        path.write_text("new, but on")
        assert target.read_text() == "old"
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"x\.txt cannot be written: No space left on device"):
        write_file_atomically(target, halfway)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]
    write_text_atomically(target, "new")
    assert target.read_text() == "new"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_nothing_is_left_when_the_writer_is_stopped(tmp_path: Path, stop: type[BaseException]) -> None:
    def stopped(path: Path) -> None:
        path.write_text("half")
        raise stop

    with pytest.raises(stop):
        write_file_atomically(tmp_path / "x.txt", stopped)
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text_atomically(tmp_path / "file" / "deeper" / "x.txt", "x")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_target_that_is_a_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_text_atomically(tmp_path / "x.txt", "x")
    assert names(tmp_path) == ["x.txt"]


def test_folders_made_for_a_file_go_with_it_when_writing_fails(tmp_path: Path) -> None:
    def stopped(path: Path) -> None:
        assert path.parent.is_dir()
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError):
        write_file_atomically(tmp_path / "a" / "b" / "x.txt", stopped)
    assert names(tmp_path) == []
    (tmp_path / "kept").mkdir()
    with pytest.raises(OutputError):
        write_file_atomically(tmp_path / "kept" / "x.txt", stopped)
    assert names(tmp_path) == ["kept"]
