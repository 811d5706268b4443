"""How a database is reached: SQLite by default, PostgreSQL by URL, in a schema of our own.

What a writer was told is written stays so when the power fails: SQLite runs in WAL mode with
synchronous=FULL, PostgreSQL as it comes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from uni_moe.artifacts import Layout
from uni_moe.errors import ConfigError, full_disk, is_full
from uni_moe.registry.versions import VARIABLE

SCHEMA = "uni_moe"  # of PostgreSQL
_SEARCHED = f"-csearch_path={SCHEMA}"
PATIENCE_S = 600  # a writer waits so long for its turn: an import of much takes minutes
READER_S = 5  # a reader waits for none of our writers, only for who keeps the file to himself
_READ_ONLY = "-cdefault_transaction_read_only=on"  # whatever role a reader was given
_DURABLE = ("journal_mode=WAL", "synchronous=FULL")
_AT_ONCE = ("journal_mode=OFF", "synchronous=OFF", "cache_size=-786432", "foreign_keys=OFF")


def reader(layout: Layout, url: str | None = None) -> Engine:
    """Return an engine whose transactions see one moment and write nothing.

    It is made once and holds no connection: what it learned of its questions makes them ten times
    as fast, and a file that was replaced is another one the next time.
    """
    return _reader(url or os.environ.get(VARIABLE), str(layout.registry))


@lru_cache(maxsize=64)
def _reader(url: str | None, file: str) -> Engine:
    address = _chosen(url, file)
    pragmas = ("query_only=ON", f"busy_timeout={READER_S * 1000}")
    more = {"connect_timeout": READER_S, "options": f"{_SEARCHED} {_READ_ONLY}"}
    how: dict[str, Any] = {"poolclass": NullPool}
    if address.get_backend_name() == "sqlite" and address.database:
        how["creator"] = partial(_open_to_read, Path(address.database))
    return _engine(address, "BEGIN", pragmas, "REPEATABLE READ", more, **how)


def _open_to_read(file: Path) -> sqlite3.Connection:
    """Open SQLite's file so that nothing of it can be written, not even at a checkpoint.

    SQLite keeps a log's index beside the file, which it makes where it is missing. Where the folder
    is not ours to write and there is no log, nobody writes the file: it is read as it stands.
    """
    log = file.with_name(f"{file.name}-wal")
    is_still = not log.exists() and not os.access(file.parent, os.W_OK)
    address = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if is_still else ''}"
    return sqlite3.connect(address, uri=True, check_same_thread=False)


def writer(layout: Layout, url: str | None = None, *, foreign_keys: bool = True) -> Engine:
    """Return an engine whose transactions take turns; SQLite keeps foreign keys if it is told to.

    A migration copies tables, for which SQLite must not look at them.
    """
    keys = f"foreign_keys={'ON' if foreign_keys else 'OFF'}"
    pragmas = (f"busy_timeout={PATIENCE_S * 1000}", *_DURABLE, keys)
    address = _chosen(url or os.environ.get(VARIABLE), str(layout.registry))
    options = {"options": _SEARCHED}
    return _engine(address, "BEGIN IMMEDIATE", pragmas, "READ COMMITTED", options)


def filler(layout: Layout) -> Engine:
    """Return an engine for a new index in a file that nobody reads yet: fast, and not durable.

    Where its process dies, the file is broken. The next writer makes it durable again.
    """
    address = _chosen(None, str(layout.registry))
    return _engine(address, "BEGIN IMMEDIATE", _AT_ONCE, "SERIALIZABLE", {})


@contextmanager
def reached(engine: Engine) -> Iterator[None]:
    """Tell a database that cannot be reached or read from a mistake of ours.

    Raises:
        ConfigError: it cannot be reached or read.
        StoreError: the disk is full.
    """
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
            cause="the file is broken or not ours to write, or another process keeps it to "
            "itself, or the database server cannot be reached or refuses us.",
            remedy=f"look at the server that {VARIABLE} names; a broken file is made anew by "
            "`uni-moe registry rebuild`: it holds nothing that cards and run folders do not.",
        ) from error


def sqlite_file(engine: Engine) -> Path | None:
    """Return SQLite's file, which need not be there; None of a server."""
    return Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None


def _engine(
    url: URL,
    begin: str,
    pragmas: tuple[str, ...],
    isolation: str,
    options: dict[str, Any],
    **how: Any,  # noqa: ANN401 - of create_engine
) -> Engine:
    """Make an engine. `begin` is said by us: the driver begins late, after DDL and SELECT."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, **how)
        event.listen(engine, "connect", _settling(pragmas))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine
    return create_engine(url, isolation_level=isolation, connect_args=options, **how)


def _chosen(url: str | None, file: str) -> URL:
    """Return the address of the index: one that was told and can be used, or a file."""
    if not url:
        return URL.create("sqlite", database=file)
    try:
        return create_engine(url).url
    except (ArgumentError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"The database that {VARIABLE} names cannot be used.",
            cause=str(error),
            remedy="for PostgreSQL, `pip install 'psycopg[binary]'` and write the address as "
            "postgresql+psycopg://user@host/name; without the variable SQLite is used.",
        ) from error


def _settling(pragmas: tuple[str, ...]) -> Callable[[Any, object], None]:
    def settle(connection: Any, _: object) -> None:  # noqa: ANN401 - a DBAPI connection
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    return settle
