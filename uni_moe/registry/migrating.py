"""The one door to Alembic: brings a database's tables to a version.

Nobody needs an alembic.ini: where the revisions lie is known, and the connection is the caller's,
so that a migration is whole or has not been.
"""

from __future__ import annotations

import threading
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, inspect

from uni_moe.registry.versions import FIRST, VERSION_TABLE

_PLACE = "uni_moe.registry:migrations"
_TURN = threading.Lock()  # Alembic keeps its context in a module


def migrate(connection: Connection, to: str = "head") -> None:
    """Bring an empty database, or one of an older version, to a version."""
    with _TURN:
        command.upgrade(_config(connection), to)


def adopt(connection: Connection) -> bool:
    """Take tables from before there were versions for those of the first, if they are the same.

    Returns:
        Whether they are; if not, nothing is changed.
    """
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as first:
            migrate(first, FIRST)
            if _form(connection) != _form(first):
                return False
    finally:
        engine.dispose()
    with _TURN:
        command.stamp(_config(connection), FIRST)
    return True


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", _PLACE)
    return config


def _form(connection: Connection) -> dict[str, Any]:
    """Return every table's columns, with whether they may be absent, and its key."""
    there = inspect(connection)
    return {
        name: (
            {column["name"]: column["nullable"] for column in there.get_columns(name)},
            set(there.get_pk_constraint(name)["constrained_columns"]),
        )
        for name in there.get_table_names()
        if name != VERSION_TABLE
    }
