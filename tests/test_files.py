"""Files that are written whole or not at all."""

import errno

import pytest

from lrp.files import remove_leftovers, write_whole


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def half(path):
        path.write_text("ha")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(file, half)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


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
    for name in [*kept, ".results-abc_1234.csv", ".a-0123abcd.safetensors"]:
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path, "results")
    assert {file.name for file in tmp_path.iterdir()} == {*kept, ".a-0123abcd.safetensors"}
    remove_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == set(kept)
    remove_leftovers(tmp_path / "nothing")
