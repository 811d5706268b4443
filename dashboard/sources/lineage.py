"""What made an artifact and what came of it, what differs, and what samples are in."""

from __future__ import annotations

from dashboard.sources.data import Stamp
from dashboard.sources.models import models
from dashboard.sources.workspace import remembered, settled
from uni_moe.artifacts import Layout
from uni_moe.differing import Difference
from uni_moe.registry import impact as impacts
from uni_moe.registry import naming, sample_facts
from uni_moe.registry import neighbourhood as neighbours
from uni_moe.registry.artifact_card import ArtifactCard, artifact_card
from uni_moe.registry.asked import Asked


@remembered
def meant(layout: Layout, said: str | None, lies: Stamp) -> list[naming.Meant]:
    """Return the artifacts that a name, a number or the beginning of an id may mean."""
    del lies  # part of the key alone
    return naming.meant(layout, said)


@remembered
def neighbourhood(
    layout: Layout, centre: str, way: neighbours.Way, steps: int, kind: str | None
) -> neighbours.Neighbourhood:
    """Return what stands around an artifact."""
    return neighbours.neighbourhood(layout, centre, way=way, steps=steps, kind=kind)


@remembered
def card(layout: Layout, artifact: str) -> ArtifactCard | None:
    """Return all that is known of one artifact."""
    return artifact_card(layout, artifact)


def difference(a: int, b: int) -> Difference:
    """Return what differs between two versions, their weights aside."""
    reports = {one.number: one.report for one in models()}
    return _difference(a, b, reports.get(a), reports.get(b))


def _is_whole(found: Difference) -> bool:
    """Say whether nothing was missing: the index may still come to know it."""
    return found.records is not None and not found.records.notes and not found.notes


@settled(_is_whole)
def _difference(
    layout: Layout, a: int, b: int, report_a: str | None, report_b: str | None
) -> Difference:
    del report_a, report_b  # parts of the key alone: a version may be judged again
    from uni_moe.differing import difference as differing

    return differing(layout, str(a), str(b), weights=False)


@remembered
def impact(layout: Layout, asked: Asked, lies: Stamp) -> impacts.Impact:
    """Return what samples are in."""
    del lies
    return impacts.impact(layout, asked)


@remembered
def samples(layout: Layout, asked: Asked) -> sample_facts.SampleFacts:
    """Return what the index knows of the first samples that are meant."""
    return sample_facts.sample_facts(layout, asked)
