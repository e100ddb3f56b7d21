"""Files that are written whole or not at all, and paths that are no files."""

import errno
import os
import socket

import pytest
from helpers import left_by_a_kill

from lrp.files import remove_leftovers, why_unreadable, write_whole


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def half(path):
        path.write_text("ha")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(file, half)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_paths_that_are_no_files(tmp_path):
    """Asked without opening them: a named pipe would wait for ever."""
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(tmp_path / "socket"))
    said = {
        "file": None, "none": "no such file", "file/none": "no such file", ".": "it is a folder, not a file",
        "pipe": "it is a named pipe, not a file", "socket": "it is a socket, not a file", "/dev/zero": "it is a device, not a file",
        "pointer": "it is a Git LFS pointer in place of the file; run git lfs pull",
        "link": "it cannot be read (Too many levels of symbolic links)",
        "a\0b": "it cannot be read (embedded null byte)", "x" * 999: "it cannot be read (File name too long)",
    }  # fmt: skip
    assert {name: why_unreadable(tmp_path / name) for name in said} == said


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "Error writing bytes to file"), errno.ENOSPC),
        (RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos 64 vs 0"), errno.ENOSPC),
        (ValueError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (ValueError("I/O error: File too large (os error 27)"), errno.EFBIG),
    ],
)
def test_whatever_says_that_the_disk_is_full_names_the_file(error, number, tmp_path):
    file = tmp_path / "a.parquet"

    def half(path):
        path.write_bytes(b"half")
        raise error

    with pytest.raises(OSError) as caught:
        write_whole(file, half)
    assert (caught.value.errno, caught.value.filename) == (number, str(file)) and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        write_whole(tmp_path / "file" / "a.csv", lambda path: None)
    assert caught.value.filename == str(tmp_path / "file" / "a.csv") and caught.value.strerror == "Not a directory"


def test_leftovers_of_a_kill_are_removed_and_nothing_else(tmp_path):
    kept = [".results-old.csv", "results.csv", ".hydra", "a-abcdefgh.csv", ".gitignore"]
    other = left_by_a_kill("a.safetensors", "0123abcd")
    for name in [*kept, left_by_a_kill("results.csv", "abc_1234"), other]:
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path, "results")
    assert {file.name for file in tmp_path.iterdir()} == {*kept, other}
    remove_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == set(kept)
    remove_leftovers(tmp_path / "nothing")
