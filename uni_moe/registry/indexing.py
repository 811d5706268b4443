"""Brings the index up to what cards and run folders say, the last decision among them."""

from __future__ import annotations

from uni_moe.artifacts import Layout, json_text, write_text
from uni_moe.audit_log import read_log
from uni_moe.registry.cards import run_cards
from uni_moe.registry.database import Upgrade, reading, upgrading, writing
from uni_moe.registry.graph import known_of
from uni_moe.registry.importing import import_graph
from uni_moe.registry.metric_import import unread
from uni_moe.registry.seen import TABLES, places
from uni_moe.registry.showing import rows
from uni_moe.registry.sightings import with_tables
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


def catch_up(layout: Layout) -> None:
    """Index what questions rest on, where the index does not know all that is here.

    Whether it does is seen from artifacts/, from what the store keeps, and from cards in run
    folders: most questions find nothing new and write nothing.
    """
    where = places(layout)
    told = {
        (card_id, what)
        for card_id, folder in where.items()
        for what, file in TABLES.items()
        if (folder / file).is_file()
    }
    ids = {*where, *run_cards(layout)}
    with reading(layout) as session:
        known = known_of(session, ids)
        known_tables = with_tables(session, where)
    if not ids <= known or not told <= known_tables:
        index_graph(layout, data=True)


def rebuild(layout: Layout) -> dict[str, int]:
    """Drop the index and import it again; readers see the old one until the new one is whole.

    Metrics alone come afterwards, run by run; where that is cut short, the next import goes on.
    Cards that were overwritten in artifacts/ before they were registered are forgotten by this.
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
