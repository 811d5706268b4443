"""The tables as they were before the index had versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    _graph()
    _runs()
    _judgements()
    op.create_table("owner", sa.Column("workspace", sa.String, primary_key=True))


def _graph() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.String, primary_key=True),
        _text("name"),
        _text("stage"),
        _text("kind"),
        _text("code"),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("results", sa.JSON, nullable=False),
    )
    _index("artifacts", "name", "kind")
    op.create_table(
        "edges",
        sa.Column("child", sa.String, sa.ForeignKey("artifacts.id"), primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        _text("parent"),
    )
    _index("edges", "parent")


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String, primary_key=True),
        _text("stage"),
        _text("status"),
        _text("started"),
        sa.Column("ended", sa.String),
        sa.Column("duration_s", sa.Float),
        *(sa.Column(name, sa.String) for name in ("user", "host", "reason", "commit", "error")),
    )
    _index("runs", "stage", "status", "started")
    op.create_table(
        "run_artifacts",
        sa.Column("run", sa.String, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        _text("artifact"),
    )
    _index("run_artifacts", "artifact")
    op.create_table(
        "metrics",
        sa.Column("run", sa.String, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True),
        sa.Column("value", sa.Float),
        sqlite_with_rowid=False,
    )


def _judgements() -> None:
    shares = ("score", "low", "high", "chance", "majority", "question_only")
    op.create_table(
        "evaluations",
        sa.Column("report", sa.String, sa.ForeignKey("artifacts.id"), primary_key=True),
        sa.Column("scope", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        _text("model"),
        sa.Column("n", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in shares),
        sa.Column("swapped", sa.Float),
    )
    _index("evaluations", "model")
    op.create_table(
        "versions",
        sa.Column("run", sa.String, primary_key=True),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        *(_text(name) for name in ("model", "report", "at", "who", "reason")),
    )
    _index("versions", "number", "model")
    op.create_table(
        "verdicts",
        sa.Column("run", sa.String, primary_key=True),
        sa.Column("sequence", sa.Integer, nullable=False),
        _text("at"),
        _text("candidate"),
        *(
            sa.Column(name, sa.String)
            for name in ("candidate_report", "champion", "champion_report")
        ),
        sa.Column("promoted", sa.Boolean, nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
    )
    op.create_index("verdicts_in_order", "verdicts", ["sequence"])


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String, nullable=False)


def _index(table: str, *columns: str) -> None:
    for column in columns:
        op.create_index(f"ix_{table}_{column}", table, [column])
