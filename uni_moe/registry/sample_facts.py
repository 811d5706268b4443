"""What the index knows of samples: where they come from, whose they are, under what licence."""

from __future__ import annotations

from dataclasses import dataclass

from uni_moe.artifacts import Layout
from uni_moe.registry.asked import Asked, meant
from uni_moe.registry.database import reading
from uni_moe.registry.samples import about

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Fact:
    """A sample as a manifest tells of it; `id` is None where a ledger alone names it."""

    key: str
    id: str | None
    source: str
    license: str | None
    subject: str | None
    modality: str
    split: str | None


@dataclass(frozen=True)
class SampleFacts:
    """How many samples are meant, and the first of them."""

    samples: int
    first: tuple[Fact, ...]


def sample_facts(layout: Layout, asked: Asked) -> SampleFacts:
    """Return what is known of the samples that are meant.

    Raises:
        UnknownError: something names no sample, or several.
    """
    with reading(layout, data=True) as session:
        numbers = meant(session, asked)
        rows = about(session, numbers[:SHOWN])
        names = Fact.__dataclass_fields__
        first = tuple(Fact(**{name: getattr(row, name) for name in names}) for row in rows)
        return SampleFacts(len(numbers), first)
