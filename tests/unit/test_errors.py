"""Which errors are the disk's, and what a person is told of them."""

import errno

import pytest

from uni_moe.cli import main
from uni_moe.errors import StageError, StoreError, of_disk


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),  # as safetensors says it
    ],
)
def test_a_full_disk_is_told_by_number_or_words(error):
    assert of_disk(error).cause == "the disk is full."


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.EACCES, errno.EFBIG])
def test_a_disk_that_refuses_is_told(number):
    told = of_disk(OSError(number, "no"))
    assert "refuses it" in told.cause
    assert "space" not in told.remedy


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no"), ValueError("no")])
def test_other_errors_are_not_the_disks(error):
    assert of_disk(error) is None


def test_the_command_tells_a_full_disk_and_blames_nobody(monkeypatch, capsys):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("uni_moe.cli_workspace._recipes", full)
    assert main(["recipes"]) == StoreError.exit_code
    said = capsys.readouterr().err
    assert "cause:  the disk is full." in said
    assert "remedy: free some space" in said
    assert "Traceback" not in said


def test_the_command_does_not_ask_for_room_where_permissions_forbid_a_file(monkeypatch, capsys):
    def refused(_):
        raise PermissionError(errno.EACCES, "Permission denied", "cat.png")

    monkeypatch.setattr("uni_moe.cli_workspace._recipes", refused)
    assert main(["recipes"]) == StageError.exit_code
    said = capsys.readouterr().err
    assert "cat.png" in said
    assert "permissions forbid it" in said
    assert "space" not in said
