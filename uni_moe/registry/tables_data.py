"""The tables of the index that tell of data: sources, samples, who holds which, contracts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Integer, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from uni_moe.registry.base import Base

# SQLite keeps a table in the order of a key of this very type.
_Number = BigInteger().with_variant(Integer, "sqlite")


class SourceRow(Base):
    """A source that samples were ingested from, as params said then; `listed` of one modality."""

    __tablename__ = "sources"
    artifact: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    listed: Mapped[int]
    params: Mapped[dict[str, Any]]


class SampleRow(Base):
    """A sample as manifests tell of it; with another content or licence it is another row.

    `mark` is the hash of all that stands in the row. `id` is None where only a ledger names it.
    """

    __tablename__ = "samples"
    number: Mapped[int] = mapped_column(_Number, primary_key=True, autoincrement=False)
    mark: Mapped[bytes] = mapped_column(LargeBinary(16), unique=True)
    key: Mapped[str] = mapped_column(index=True)
    id: Mapped[str | None] = mapped_column(index=True)
    source: Mapped[str] = mapped_column(index=True)
    license: Mapped[str | None] = mapped_column(index=True)
    subject: Mapped[str | None] = mapped_column(index=True)
    modality: Mapped[str]
    split: Mapped[str | None]


class HolderRow(Base):
    """An artifact's table of samples: accepted, refused, learned (its ledger), or judged.

    `blocks` says where its rows are: see `uni_moe.registry.holdings`.
    """

    __tablename__ = "holders"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    artifact: Mapped[str] = mapped_column(ForeignKey("artifacts.id"))
    what: Mapped[str]
    samples: Mapped[int]
    draws: Mapped[int]
    blocks: Mapped[bytes]
    __table_args__ = (UniqueConstraint("artifact", "what"),)


class HoldingRow(Base):
    """Some neighbouring samples that a holder has, packed, under block and holder in one number."""

    __tablename__ = "holdings"
    place: Mapped[int] = mapped_column(_Number, primary_key=True, autoincrement=False)
    data: Mapped[bytes]


class ContractRow(Base):
    """The verdict of a contract over all samples, by its report; `sha256` is of what it says."""

    __tablename__ = "contracts"
    report: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), primary_key=True)
    name: Mapped[str]
    version: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)
    kept: Mapped[bool]
    breaches: Mapped[list[Any]]


class RuleRow(Base):
    """What one rule of a contract found."""

    __tablename__ = "contract_rules"
    report: Mapped[str] = mapped_column(ForeignKey("contracts.report"), primary_key=True)
    code: Mapped[str] = mapped_column(primary_key=True)
    level: Mapped[str]
    rule: Mapped[str]
    checked: Mapped[int]
    failed: Mapped[int]
