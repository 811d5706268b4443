"""Which version of the index a database holds, and what is said where it is not the one of today.

A version is the number of a revision in migrations/versions. What a database holds is looked at in
one place, `look`; what follows from it is decided by `Found.state`, which touches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect

from uni_moe.errors import ConfigError
from uni_moe.registry.tables import RunArtifactRow

VARIABLE = "UNI_MOE_DATABASE_URL"
VERSION_TABLE = "alembic_version"
FIRST = "0001"  # the tables as they were before there were versions
_OURS = RunArtifactRow.__tablename__  # in every version, and in nobody else's database
_REVISIONS = Path(__file__).parent / "migrations" / "versions"


class State(Enum):
    """What a database is to this code."""

    EMPTY = "empty"
    TODAY = "of this version"
    OLDER = "of an older version"
    NEWER = "of a newer version"
    STRANGE = "of somebody else"


@dataclass(frozen=True)
class Found:
    """The names of a database's tables, and its version; None where it says none."""

    tables: frozenset[str]
    version: str | None

    @property
    def state(self) -> State:
        """What the database is to this code."""
        if not self.tables - {VERSION_TABLE}:
            return State.EMPTY
        if _OURS not in self.tables:
            return State.STRANGE
        if self.version is None or self.version in known()[:-1]:
            return State.OLDER
        return State.TODAY if self.version == known()[-1] else State.NEWER


@cache
def known() -> tuple[str, ...]:
    """Return the versions that this code knows, today's last."""
    return tuple(sorted(file.name[1:5] for file in _REVISIONS.glob("r[0-9]*.py")))


def look(connection: Connection) -> Found:
    """Return what a database holds."""
    if connection.dialect.name == "sqlite":  # every reader asks: a tenth of the time
        asked = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        tables = frozenset(name for (name,) in connection.exec_driver_sql(asked))
    else:
        tables = frozenset(inspect(connection).get_table_names())
    return Found(tables, version_of(connection) if VERSION_TABLE in tables else None)


def version_of(connection: Connection) -> str | None:
    """Return the version that a database says; it must have the table that says it."""
    return connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()


def refuse(connection: Connection, found: Found) -> ConfigError:
    """Return what a person is told of a database that this code neither reads nor writes."""
    if found.state is State.STRANGE:
        return ConfigError(
            f"The database {connection.engine.url!r} holds other tables: "
            f"{', '.join(sorted(found.tables)[:5])}.",
            cause=f"{VARIABLE} names a database that is not an index of ours.",
            remedy="name a new database, or a file that does not exist.",
        )
    said = f"version {found.version}" if found.version else "a version before 0001"
    what = f"The index {connection.engine.url!r} is of {said}; this code knows {known()[-1]}."
    if found.state is State.OLDER:
        return ConfigError(
            what,
            cause="older code wrote it. Nothing was read from it or written to it.",
            remedy="run `uni-moe registry upgrade`, once for all who share it.",
        )
    return ConfigError(
        what,
        cause="newer code wrote it. Nothing was read from it or written to it.",
        remedy="bring this code up to date; or give this workspace a database of its own by "
        f"{VARIABLE}, and fill it by `uni-moe registry rebuild`.",
    )
