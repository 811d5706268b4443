"""Sources, samples, who holds which of them, contracts and their rules.

They are empty at first; the next `uni-moe index` fills them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "sources",
        _artifact("artifact"),
        sa.Column("name", sa.String, primary_key=True),
        _text("kind"),
        _count("listed"),
        sa.Column("params", sa.JSON, nullable=False),
    )
    _samples()
    _contracts()


def _samples() -> None:
    op.create_table(
        "samples",
        _key("number", _NUMBER),
        sa.Column("mark", sa.LargeBinary(16), nullable=False, unique=True),
        _text("key"),
        sa.Column("id", sa.String),
        _text("source"),
        sa.Column("license", sa.String),
        sa.Column("subject", sa.String),
        _text("modality"),
        sa.Column("split", sa.String),
    )
    for name in ("key", "id", "source", "license", "subject"):
        op.create_index(f"ix_samples_{name}", "samples", [name])
    op.create_table(
        "holders",
        _key("number", sa.Integer()),
        sa.Column("artifact", sa.String, sa.ForeignKey("artifacts.id"), nullable=False),
        _text("what"),
        _count("samples"),
        _count("draws"),
        sa.Column("blocks", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("artifact", "what"),
    )
    op.create_table(
        "holdings",
        _key("place", _NUMBER),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def _contracts() -> None:
    op.create_table(
        "contracts",
        _artifact("report"),
        _text("name"),
        _count("version"),
        _text("sha256"),
        sa.Column("kept", sa.Boolean, nullable=False),
        sa.Column("breaches", sa.JSON, nullable=False),
    )
    op.create_index("ix_contracts_sha256", "contracts", ["sha256"])
    op.create_table(
        "contract_rules",
        sa.Column("report", sa.String, sa.ForeignKey("contracts.report"), primary_key=True),
        sa.Column("code", sa.String, primary_key=True),
        _text("level"),
        _text("rule"),
        _count("checked"),
        _count("failed"),
    )


def _artifact(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String, sa.ForeignKey("artifacts.id"), primary_key=True)


def _key(name: str, kind: sa.types.TypeEngine[int]) -> sa.Column[int]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String, nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False)
