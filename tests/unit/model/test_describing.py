"""What is told of a file that describes a network, and what is the disk's."""

import errno
from pathlib import Path

import pytest

from uni_moe.errors import ConfigError, LineageError
from uni_moe.model.describing import telling_of

FILE = Path("config.json")


@pytest.mark.parametrize("error", [ValueError("no"), OSError("no such model"), KeyError("heads")])
def test_a_network_that_cannot_be_built_is_told_with_its_file(error):
    with pytest.raises(ConfigError, match=r"config\.json describes no network"), telling_of(FILE):
        raise error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO])
def test_a_disk_that_is_full_or_refuses_is_no_network_that_cannot_be_built(number):
    with pytest.raises(OSError, match="disk") as told, telling_of(FILE):
        raise OSError(number, "disk")
    assert told.value.errno == number


def test_what_is_told_already_stays(tmp_path):
    with pytest.raises(LineageError, match="what"), telling_of(tmp_path):
        raise LineageError("what", cause="cause", remedy="remedy")
