"""Opens the index for writing, for reading, and for an upgrade.

The database belongs to the index alone; in PostgreSQL the index keeps to a schema of its own, so
that others may share the database. A new one is made by the migrations. One of another version is
told, and only an upgrade or a rebuild touches it.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData, create_engine, func, select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout, write_text
from uni_moe.errors import ConfigError
from uni_moe.registry import engines
from uni_moe.registry.importing import import_graph
from uni_moe.registry.metric_import import read_on, unread
from uni_moe.registry.schema import METADATA
from uni_moe.registry.tables import OwnerRow
from uni_moe.registry.versions import VARIABLE, State, known, look, refuse

_WORKSPACE = ".workspace"
_LOOK_S = 1.0  # for another process to let go of the file
_BROKEN = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_TURN = 0x756E696D6F65  # any number that all writers of this index agree on


@dataclass(frozen=True)
class Upgrade:
    """What an upgrade does: from which version to which, and whether all is imported again."""

    before: str | None  # None: there were no versions yet, or no index
    after: str
    is_afresh: bool

    def text(self) -> str:
        """Return it as a line for a person."""
        if self.before == self.after:
            return f"the index is of version {self.after} already"
        how = "made anew from cards and run folders" if self.is_afresh else "brought"
        return f"the index was {how} from version {self.before or 'none'} to {self.after}"


@contextmanager
def writing(layout: Layout, url: str | None = None, *, afresh: bool = False) -> Iterator[Session]:
    """Give a session whose work appears at its end, whole; writers take turns.

    A new database gets its tables. With `afresh` all tables are made anew, inside the same
    transaction; a broken SQLite file is then moved aside.

    Raises:
        ConfigError: the database is of another version (an older one may be made afresh), holds
            tables of somebody else or of another workspace, or cannot be reached or read.
        StoreError: the disk is full.
    """
    if afresh:
        _move_aside(layout, url)
    with _first_turn(engines.writer(layout, url)) as connection:
        found = look(connection)
        allowed = (State.EMPTY, State.TODAY, *((State.OLDER,) if afresh else ()))
        if found.state not in allowed:
            raise refuse(connection, found)
        own = identity(layout)
        _check_owner(connection, found.tables, own)
        if afresh or found.state is State.EMPTY:
            _make_anew(connection)
        with working(connection) as session:
            _own(session, own)
            yield session


@contextmanager
def upgrading(layout: Layout, url: str | None = None) -> Iterator[tuple[Session, Upgrade]]:
    """Give a session to an index that was brought to today's version; it appears whole.

    Tables from before there were versions are taken over where they have the form that the first
    version has; those of another form are made anew, and everything is to be imported again.

    Raises:
        ConfigError: as `writing`, but for an older version.
        StoreError: the disk is full.
    """
    from uni_moe.registry.migrating import adopt, migrate  # Alembic takes a while

    with _first_turn(engines.writer(layout, url, foreign_keys=False)) as connection:
        found = look(connection)
        if found.state in (State.STRANGE, State.NEWER):
            raise refuse(connection, found)
        own = identity(layout)
        _check_owner(connection, found.tables, own)
        is_strange = found.state is State.OLDER and not (found.version or adopt(connection))
        if is_strange:
            _make_anew(connection)
        else:
            migrate(connection)
        with working(connection) as session:
            _own(session, own)
            yield session, Upgrade(found.version, known()[-1], is_strange)
        _check_keys(connection)


@contextmanager
def reading(layout: Layout, *, metrics: bool = False, data: bool = False) -> Iterator[Session]:
    """Give a session for questions, all about one moment.

    Where there is no index, it is imported into memory, metrics and tables of samples only if they
    are asked for: a reader writes nothing and is never wrong.

    Raises:
        ConfigError: the database is of another version or workspace or of somebody else, or
            cannot be reached or read.
    """
    with _opened(layout) as session:
        if session is not None:
            yield session
            return
    with _in_memory(layout, metrics=metrics, data=data) as session:
        yield session


@contextmanager
def indexed(layout: Layout) -> Iterator[Session]:
    """Give a session to the index as it stands; where there is none, to an empty one.

    For who looks into run folders himself, where `reading` would open every one of them.

    Raises:
        ConfigError: as `reading`.
    """
    with _opened(layout) as session:
        if session is not None:
            yield session
            return
    with _empty() as session:
        yield session


def check(layout: Layout, url: str | None = None) -> None:
    """Look whether the index can be used, before anything long begins.

    Raises:
        ConfigError: as `reading`.
    """
    engine = engines.reader(layout, url)
    with engines.reached(engine):
        if _is_there(engine):
            with engine.connect() as connection:
                usable(connection, layout)


@contextmanager
def _opened(layout: Layout) -> Iterator[Session | None]:
    """Give a session to the index, None where there is none."""
    engine = engines.reader(layout)
    with engines.reached(engine):
        if _is_there(engine):
            with engine.connect() as connection:
                if usable(connection, layout):
                    with Session(connection) as session:
                        yield session
                    return
    yield None


def usable(connection: Connection, layout: Layout) -> bool:
    """Return whether there are tables to read.

    Raises:
        ConfigError: they are of another version or workspace, or of somebody else.
    """
    found = look(connection)
    if found.state is State.EMPTY:
        return False
    if found.state is not State.TODAY:
        raise refuse(connection, found)
    _check_owner(connection, found.tables, _known_identity(layout))
    return True


@contextmanager
def turn(engine: Engine) -> Iterator[Connection]:
    """Give a connection in one transaction of a writer whose turn it is."""
    with engines.reached(engine), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_TURN)))
        yield connection


@contextmanager
def working(connection: Connection) -> Iterator[Session]:
    """Give a session inside a transaction, which stays the caller's."""
    with Session(connection) as session:
        yield session
        session.flush()


@contextmanager
def _first_turn(engine: Engine) -> Iterator[Connection]:
    """Give a turn of an engine of its own, with our schema."""
    try:
        with turn(engine) as connection:
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {engines.SCHEMA}")
            yield connection
    finally:
        engine.dispose()


def identity(layout: Layout) -> str:
    """Return what tells this workspace from others; it moves with the store."""
    file = layout.store / _WORKSPACE
    if not file.is_file():
        write_text(file, uuid.uuid4().hex + "\n")
    return file.read_text(encoding="utf-8").strip()


def _known_identity(layout: Layout) -> str | None:
    """Return the same, None where nothing was ever registered: a reader writes nothing."""
    file = layout.store / _WORKSPACE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _check_owner(connection: Connection, tables: frozenset[str], own: str | None) -> None:
    if OwnerRow.__tablename__ not in tables:
        return
    owners = [name for (name,) in connection.exec_driver_sql("SELECT workspace FROM owner")]
    if not owners or owners == [own]:
        return
    raise ConfigError(
        f"The index {connection.engine.url!r} belongs to another workspace.",
        cause=f"its models and champions would be mixed up with those of {owners[0][:12]}.",
        remedy=f"give each workspace a database of its own by {VARIABLE}. If the store of this one "
        "was replaced and the index is a file, remove the file.",
    )


def _own(session: Session, own: str) -> None:
    if session.get(OwnerRow, own) is None:
        session.add(OwnerRow(workspace=own))
        session.flush()


def _check_keys(connection: Connection) -> None:
    """Look at what SQLite did not while tables were copied."""
    if connection.dialect.name == "sqlite":
        loose = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        assert not loose, f"a migration left rows without their parents: {loose[:3]}"


def _move_aside(layout: Layout, url: str | None) -> None:
    """Rename a SQLite index that is not whole any more; nothing is deleted."""
    file = engines.sqlite_file(engines.reader(layout, url))
    if file is None or not file.is_file() or _is_whole(file):
        return
    for part in file.parent.glob(f"{file.name}*"):
        part.rename(part.with_name(part.name.replace(file.name, f"{file.name}.broken", 1)))


def _is_whole(file: Path) -> bool:
    """Say whether a file is a database with sound pages, as far as it can be read."""
    try:
        with closing(sqlite3.connect(file, timeout=_LOOK_S)) as connection:
            return connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
    except sqlite3.DatabaseError as error:
        return not getattr(error, "sqlite_errorname", "").startswith(_BROKEN)


@contextmanager
def _in_memory(layout: Layout, *, metrics: bool, data: bool) -> Iterator[Session]:
    with _empty() as session:
        import_graph(session, layout, data=data)
        waiting = deque(unread(session, layout) if metrics else ())
        while waiting:
            read_on(session, waiting)
        yield session


@contextmanager
def _empty() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)  # a test holds it to what migrations make, which take longer
    try:
        with Session(engine) as session:
            yield session
    finally:
        engine.dispose()


def _is_there(engine: Engine) -> bool:
    """Say whether there is a database to open: SQLite would make an empty one."""
    file = engines.sqlite_file(engine)
    return file is None or file.is_file()


def _make_anew(connection: Connection) -> None:
    """Drop an index of any version, and make today's tables."""
    from uni_moe.registry.migrating import migrate  # Alembic takes a while

    there = MetaData()
    there.reflect(connection)
    there.drop_all(connection)
    migrate(connection)
