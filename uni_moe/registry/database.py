"""Opens the index for writing and for reading. SQLite by default, PostgreSQL by URL.

The database belongs to the index alone: tables of an older version are dropped and imported again.
In PostgreSQL the index keeps to a schema of its own, so that others may share the database.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    MetaData,
    create_engine,
    event,
    func,
    inspect,
    select,
)
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout, write_text
from uni_moe.errors import ConfigError, full_disk, is_full
from uni_moe.registry.importing import import_all
from uni_moe.registry.tables import Base, OwnerRow, RunArtifactRow

VARIABLE = "UNI_MOE_DATABASE_URL"
_SCHEMA = "uni_moe"
_WORKSPACE = ".workspace"
_TURN = 0x756E696D6F65  # any number that all writers of this index agree on


@contextmanager
def writing(layout: Layout, url: str | None = None, *, afresh: bool = False) -> Iterator[Session]:
    """Give a session whose work appears at its end, whole; writers take turns.

    Tables are made where they are missing. They are made anew, inside the same transaction, where
    they are of an older version, or where `afresh` asks for it; a broken SQLite file is then moved
    aside.

    Raises:
        ConfigError: the database holds tables of somebody else or of another workspace, or cannot
            be reached or read.
        StoreError: the disk is full.
    """
    if afresh:
        _move_aside(layout, url)
    engine = _open(layout, url, begin="BEGIN IMMEDIATE")
    try:
        with _reached(engine), Session(engine) as session, session.begin():
            connection = session.connection()
            if engine.dialect.name == "postgresql":
                session.execute(select(func.pg_advisory_xact_lock(_TURN)))
                connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
            own = _identity(layout)
            if _fits(connection):
                _check_owner(connection, own)
            if afresh or not _fits(connection):
                _drop(connection)
                Base.metadata.create_all(connection)
            if session.get(OwnerRow, own) is None:
                session.add(OwnerRow(workspace=own))
                session.flush()
            yield session
    finally:
        engine.dispose()


@contextmanager
def reading(layout: Layout, url: str | None = None, *, data: bool = False) -> Iterator[Session]:
    """Give a session for questions, all about one moment.

    Where there is no index, or one of another version, it is imported into memory, metrics
    aside, and tables of samples only for who asks about `data`: a reader writes nothing and is
    never wrong.

    Raises:
        ConfigError: the database is that of another workspace, or cannot be reached or read.
    """
    engine = _open(layout, url, begin="BEGIN")
    try:
        with _reached(engine):
            if _is_there(engine):
                with engine.connect() as connection:
                    if _fits(connection):
                        _check_owner(connection, _known_identity(layout))
                        with Session(connection) as session:
                            yield session
                        return
        with _in_memory(layout, data=data) as session:
            yield session
    finally:
        engine.dispose()


@contextmanager
def _reached(engine: Engine) -> Iterator[None]:
    """Tell a database that cannot be reached or read from a mistake of ours."""
    try:
        yield
    except DBAPIError as error:
        if error.orig is not None and is_full(error.orig):  # the whole holds our own texts, too
            raise full_disk(f"The index {engine.url!r} could not be written.") from error
        broken = type(error) is DatabaseError or isinstance(error, OperationalError)
        if not broken:
            raise
        raise ConfigError(
            f"The index {engine.url!r} cannot be used: {str(error.orig).strip()}",
            cause="the file is broken or not ours to write, or the database server cannot be "
            "reached or refuses us.",
            remedy=f"look at the server that {VARIABLE} names; a broken file is made anew by "
            "`uni-moe index --rebuild`: it holds nothing that cards and run folders do not.",
        ) from error


def _identity(layout: Layout) -> str:
    """Return what tells this workspace from others; it moves with the store."""
    file = layout.store / _WORKSPACE
    if not file.is_file():
        write_text(file, uuid.uuid4().hex + "\n")
    return file.read_text(encoding="utf-8").strip()


def _known_identity(layout: Layout) -> str | None:
    """Return the same, None where nothing was ever registered: a reader writes nothing."""
    file = layout.store / _WORKSPACE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _check_owner(connection: Connection, own: str | None) -> None:
    owners = connection.execute(select(OwnerRow.workspace)).scalars().all()
    if not owners or list(owners) == [own]:
        return
    raise ConfigError(
        f"The index {connection.engine.url!r} belongs to another workspace.",
        cause=f"its models and champions would be mixed up with those of {owners[0][:12]}.",
        remedy=f"give each workspace a database of its own by {VARIABLE}. If the store of this one "
        "was replaced and the index is a file, remove the file.",
    )


def _move_aside(layout: Layout, url: str | None) -> None:
    """Rename a SQLite index that is no database any more; nothing is deleted."""
    engine = _open(layout, url, begin="BEGIN")
    file = Path(engine.url.database or "")
    engine.dispose()
    if engine.dialect.name != "sqlite" or not file.is_file():
        return
    try:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA quick_check").fetchone()
    except sqlite3.DatabaseError:
        for part in file.parent.glob(f"{file.name}*"):
            part.rename(part.with_name(part.name.replace(file.name, f"{file.name}.broken", 1)))


@contextmanager
def _in_memory(layout: Layout, *, data: bool) -> Iterator[Session]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    try:
        with Session(engine) as session:
            import_all(session, layout, metrics=False, data=data)
            yield session
    finally:
        engine.dispose()


def _open(layout: Layout, url: str | None, *, begin: str) -> Engine:
    """Return the index's engine. SQLite runs in WAL mode, waits for a writer, keeps foreign keys.

    `begin` is said by us: left to itself, the driver begins late, after DDL and SELECT.
    """
    chosen = url or os.environ.get(VARIABLE)
    try:
        engine = create_engine(chosen or URL.create("sqlite", database=str(layout.registry)))
    except (ArgumentError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"The database that {VARIABLE} names cannot be used.",
            cause=str(error),
            remedy="for PostgreSQL, `pip install 'psycopg[binary]'` and write the address as "
            "postgresql+psycopg://user@host/name; without the variable SQLite is used.",
        ) from error
    if engine.dialect.name == "sqlite":
        reads = begin == "BEGIN"
        event.listen(engine, "connect", _settle_reader if reads else _settle_writer)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine
    isolation = "REPEATABLE READ" if begin == "BEGIN" else "READ COMMITTED"
    return create_engine(
        engine.url,
        isolation_level=isolation,
        connect_args={"options": f"-csearch_path={_SCHEMA}"},
    )


def _is_there(engine: Engine) -> bool:
    """Say whether there is a database to open: SQLite would make an empty one."""
    return engine.dialect.name != "sqlite" or Path(engine.url.database or "").is_file()


def _fits(connection: Connection) -> bool:
    """Say whether the database has exactly our tables' columns and keys."""
    there = inspect(connection)
    for table in Base.metadata.tables.values():
        if not there.has_table(table.name):
            return False
        columns = {column["name"]: column["nullable"] for column in there.get_columns(table.name)}
        key = there.get_pk_constraint(table.name)["constrained_columns"]
        if columns != {column.name: column.nullable for column in table.columns}:
            return False
        if set(key) != set(table.primary_key.columns.keys()):
            return False
    return True


def _drop(connection: Connection) -> None:
    """Drop an index of any version."""
    there = MetaData()
    there.reflect(connection)
    if there.tables and RunArtifactRow.__tablename__ not in there.tables:
        raise ConfigError(
            f"The database {connection.engine.url!r} holds other tables: "
            f"{', '.join(sorted(there.tables)[:5])}.",
            cause=f"{VARIABLE} names a database that is not an index of ours.",
            remedy="name a new database, or a file that does not exist.",
        )
    there.drop_all(connection)


def _settle_writer(connection: Any, _: object) -> None:  # noqa: ANN401 - a DBAPI connection
    connection.isolation_level = None
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _settle_reader(connection: Any, _: object) -> None:  # noqa: ANN401 - a DBAPI connection
    connection.isolation_level = None
    for pragma in ("busy_timeout=30000", "query_only=ON"):
        connection.execute(f"PRAGMA {pragma}")
