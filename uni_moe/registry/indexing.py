"""Brings the index up to what cards and run folders say, the last decision among them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout, json_text, read_card, write_text
from uni_moe.audit_log import REGISTRATION, VERDICT, last_decision, read_log
from uni_moe.registry.cards import artifact_folders
from uni_moe.registry.database import Upgrade, reading, upgrading, writing
from uni_moe.registry.graph import known_of
from uni_moe.registry.importing import import_graph
from uni_moe.registry.made import cards_of_run
from uni_moe.registry.metric_import import unread
from uni_moe.registry.run_questions import unsettled
from uni_moe.registry.seen import TABLES, places
from uni_moe.registry.showing import rows
from uni_moe.registry.sightings import with_tables
from uni_moe.registry.tables import VerdictRow, VersionRow
from uni_moe.registry.writer import opened
from uni_moe.runs import RECORD


def index(layout: Layout) -> dict[str, int]:
    """Import every card and run folder that is not in the index yet; return what it holds."""
    index_graph(layout, data=True)
    return _index_metrics(layout)


def index_graph(layout: Layout, *, data: bool = False) -> None:
    """Import the same, metrics aside: all that a decision rests on, or with `data` a question."""
    _finish(layout)
    with writing(layout) as session:
        import_graph(session, layout, data=data)


def catch_up(layout: Layout, *, data: bool = True) -> None:
    """Index what questions rest on, where the index does not know all that is here.

    Most questions find nothing new and write nothing. What is here is seen from artifacts/, from
    the store's models, from run folders that the index does not know to their end, from the last
    decision, and with `data` from the tables of samples.
    """
    if _lacks_graph(layout) or (data and _lacks_tables(layout)):
        index_graph(layout, data=data)


def _lacks_graph(layout: Layout) -> bool:
    """Say whether a card or a decision is not in the index."""
    runs = [layout.runs / name for name in unsettled(layout).runs]
    ids = {read_card(folder).id for folder in artifact_folders(layout.artifacts)}
    ids |= {folder.parent.name for folder in layout.store.glob("*/model")}
    ids = ids.union(*map(cards_of_run, runs))
    with reading(layout) as session:
        return not ids <= known_of(session, ids) or not _are_decided(session, layout, runs)


def _are_decided(session: Session, layout: Layout, runs: list[Path]) -> bool:
    """Say whether the index knows the decisions that runs hold, and the last of the log."""
    last = last_decision(layout)
    told = [folder / name for folder in runs for name in (REGISTRATION, VERDICT)]
    wanted = {file.parent.name for file in told if file.is_file()}
    if last is not None and (layout.root / last).with_name(RECORD).is_file():
        wanted.add((layout.root / last).parent.name)
    known = (
        session.scalars(select(row.run).where(row.run.in_(wanted)))
        for row in (VersionRow, VerdictRow)
    )
    return not wanted or wanted <= {run for runs_of in known for run in runs_of}


def _lacks_tables(layout: Layout) -> bool:
    """Say whether a table of samples, or the artifact that it is of, is not in the index."""
    where = places(layout)
    told = {
        (card_id, what)
        for card_id, folder in where.items()
        for what, file in TABLES.items()
        if (folder / file).is_file()
    }
    with reading(layout) as session:
        return not where.keys() <= known_of(session, where) or not told <= with_tables(
            session, where
        )


def rebuild(layout: Layout) -> dict[str, int]:
    """Drop the index and import it again; readers see the old one until the new one is whole.

    Metrics alone come afterwards, run by run; where that is cut short, the next import goes on.
    The graph is the same again: runs keep the cards of what they made. Not covered: tables of
    samples and scores whose files were overwritten before they were registered.
    """
    _finish(layout)
    with writing(layout, afresh=True) as session:
        import_graph(session, layout)
    return _index_metrics(layout)


def upgrade(layout: Layout) -> Upgrade:
    """Bring an index of an older version to today's, and import what it lacks.

    Raises:
        ConfigError: it is of a newer version, of another workspace or of somebody else.
    """
    _finish(layout)
    with upgrading(layout) as (session, done):
        import_graph(session, layout)
    _index_metrics(layout)
    return done


def _index_metrics(layout: Layout) -> dict[str, int]:
    """Import what run folders hold beyond what was read of them; return the rows of all tables."""
    with reading(layout) as session:
        waiting = unread(session, layout)
    if waiting:
        with opened(layout) as writer:
            writer.read(waiting)
    with reading(layout) as session:
        return rows(session.connection())


def _finish(layout: Layout) -> None:
    """Write the last decision that the log tells of, where its process died before it did."""
    told = [entry for entry in read_log(layout).entries if "decision" in entry.evidence]
    if not told:
        return
    (path,) = told[-1].evidence["files"]
    file = layout.root / path
    if not file.exists() and (file.parent / RECORD).is_file():
        write_text(file, json_text(told[-1].evidence["decision"]))
