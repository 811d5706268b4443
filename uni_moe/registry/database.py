"""Opens the index for writing and for reading. SQLite by default, PostgreSQL by URL.

The database belongs to the index alone: tables of an older version are dropped and imported again.
In PostgreSQL the index keeps to a schema of its own, so that others may share the database.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.errors import ConfigError
from uni_moe.registry.importing import import_all
from uni_moe.registry.tables import Base, RunArtifactRow

VARIABLE = "UNI_MOE_DATABASE_URL"
_SCHEMA = "uni_moe"
_TURN = 0x756E696D6F65  # any number that all writers of this index agree on


@contextmanager
def writing(layout: Layout, url: str | None = None, *, afresh: bool = False) -> Iterator[Session]:
    """Give a session whose work appears at its end, whole; writers take turns.

    Tables are made where they are missing. They are made anew, inside the same transaction, where
    they are of an older version, or where `afresh` asks for it.

    Raises:
        ConfigError: the database holds tables of somebody else.
    """
    engine = _open(layout, url, begin="BEGIN IMMEDIATE")
    try:
        with Session(engine) as session, session.begin():
            connection = session.connection()
            if engine.dialect.name == "postgresql":
                session.execute(select(func.pg_advisory_xact_lock(_TURN)))
                connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
            if afresh or not _fits(connection):
                _drop(connection)
                Base.metadata.create_all(connection)
            yield session
    finally:
        engine.dispose()


@contextmanager
def reading(layout: Layout, url: str | None = None) -> Iterator[Session]:
    """Give a session for questions, all about one moment.

    Where there is no index, or one of another version, it is imported into memory, metrics
    aside: a reader writes nothing and is never wrong.
    """
    engine = _open(layout, url, begin="BEGIN")
    try:
        if _is_there(engine):
            with engine.connect() as connection:
                if _fits(connection):
                    with Session(connection) as session:
                        yield session
                    return
        with _in_memory(layout) as session:
            yield session
    finally:
        engine.dispose()


@contextmanager
def _in_memory(layout: Layout) -> Iterator[Session]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    try:
        with Session(engine) as session:
            import_all(session, layout, metrics=False)
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
