"""The outlook of a workspace: all that can be said of its planned stages before they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.config import Gate, load_params
from uni_moe.machine import load_machine
from uni_moe.outlook.disk import Disk, disk_of
from uni_moe.outlook.samples import Samples, SourceCount, count_sources, samples_here
from uni_moe.outlook.times import Estimate, estimate, last_runs, rate_here
from uni_moe.outlook.training import Training
from uni_moe.outlook.trainings import Trainings
from uni_moe.registry.read import Version, champion
from uni_moe.registry.stale import Stale, stale_artifacts


@dataclass(frozen=True)
class Outlook:
    """What the planned stages will do. Stages are named in their order.

    `sources` is asked only where a modality has no samples here.
    """

    stages: tuple[str, ...]
    samples: Mapping[str, Samples]
    sources: Mapping[str, SourceCount]
    trainings: Mapping[str, Training]
    times: Mapping[str, Estimate]
    disk: Disk
    stale: tuple[Stale, ...]
    gate: Gate
    champion: Version | None

    @property
    def seconds(self) -> float:
        """What all stages take one behind the other, as far as it is known."""
        return sum(one.seconds or 0.0 for one in self.times.values())

    @property
    def fits(self) -> bool:
        """Whether all stages have the memory, as far as it is modelled, and the disk has room."""
        too_large = any(one.fits is False for one in self.trainings.values())
        return self.disk.fits and not too_large

    def to_json(self) -> dict[str, Any]:
        """Return the outlook as a JSON object."""
        current = self.champion
        return {
            "samples": {name: one.to_json() for name, one in self.samples.items()},
            "sources": {name: one.to_json() for name, one in self.sources.items()},
            "trainings": {name: one.to_json() for name, one in self.trainings.items()},
            "times": {name: one.to_json() for name, one in self.times.items()},
            "seconds": self.seconds,
            "seconds_unknown": [name for name, one in self.times.items() if one.seconds is None],
            "disk": self.disk.to_json(),
            "stale": [one.to_json() for one in self.stale],
            "gate": {
                **vars(self.gate),
                "champion": None if current is None else current.number,
            },
        }


def look_ahead(layout: Layout, stages: Sequence[str], abreast: int = 1) -> Outlook:
    """Return what these stages of a workspace will do. Nothing runs, nothing is written.

    Args:
        layout: the workspace.
        stages: the planned stages.
        abreast: how many of them that train share the machine.

    Raises:
        ConfigError: params.yaml or machine.yaml is wrong, or a part's sizes are not known.
        LineageError: a card cannot be read.
    """
    params, machine = load_params(layout.params), load_machine(layout.root)
    looking = Trainings(layout, params, machine, abreast)
    found = {stage: looking.of(stage) for stage in stages}
    trainings = {stage: one for stage, one in found.items() if one is not None}
    last, rate = last_runs(layout), rate_here(params.platform.precision)
    samples = samples_here(layout)
    return Outlook(
        stages=tuple(stages),
        samples=samples,
        sources={} if samples else count_sources(params, layout.root),
        trainings=trainings,
        times={stage: estimate(found[stage], last.get(stage), rate) for stage in stages},
        disk=disk_of(layout, params, looking.config, stages, trainings, machine),
        stale=tuple(stale_artifacts(layout, stages)),
        gate=params.gate,
        champion=champion(layout),
    )
