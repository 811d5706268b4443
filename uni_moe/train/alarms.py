"""What goes wrong in a training, as it shows in the stream of steps. Pure: nobody acts here.

Two watches with a small state each. `Leaps` needs the loss and the gradient's norm alone, so every
rank comes to the same finding. `RouterWatch` needs the routing, which the first rank has. Their
states go into training states, so a training that goes on finds what an undisturbed one finds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from uni_moe.config import Guard, RouterAlarms
from uni_moe.model.routing_sums import RoutingSums
from uni_moe.train.batches import Seen, StepReport

AlarmKind = Literal[
    "not_finite", "loss_spike", "gradient_spike", "collapse", "low_entropy", "dead_expert"
]

# A loss is compared by log(loss + 0.05): differences below 0.05 nats a token are no matter.
_FLOORS = {"loss": 0.05, "gradient": 1e-8}
# Two steps in a row of a healthy training differ by a tenth; less spread than that is chance.
_LEAST_DEVIATION = 0.1
_DEVIATION_OF_MAD = 1.4826  # makes it the standard deviation of normal noise


@dataclass(frozen=True)
class Suspect:
    """A draw of a step that went wrong; `loss` is its mean per token, None where it has none."""

    slot: int
    rank: int
    key: str
    sample: str
    modality: str
    source: str
    tokens: int
    loss: float | None


@dataclass(frozen=True)
class Alarm:
    """Something that a person should know; `draws` are those of the step, the worst first."""

    kind: AlarmKind
    step: int
    text: str
    value: float
    limit: float | None = None
    layer: int | None = None
    expert: int | None = None
    draws: tuple[Suspect, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the alarm as a JSON object without absent fields; infinite and NaN as text."""
        plain = {key: value for key, value in asdict(self).items() if value is not None}
        plain["draws"] = [{**draw, "loss": _json(draw["loss"])} for draw in plain["draws"]]
        return plain | {"value": _json(self.value)}


class Leaps:
    """Finds losses and gradients that are no numbers or leap above those of the steps before.

    Judging begins when half of the window is filled. A leap goes off once, however many steps it
    lasts; its steps count for those that follow, so that a training which stays on a new level is
    not told at every step.

    Source: the median and its absolute deviation as robust scale, Rousseeuw and Croux 1993.
    """

    def __init__(self, rules: Guard) -> None:
        self._rules = rules
        self._earlier = {name: deque[float](maxlen=rules.window_steps) for name in _FLOORS}
        self._high = dict.fromkeys(_FLOORS, False)

    def see(self, step: int, loss: float, gradient_norm: float) -> list[Alarm]:
        """Return the alarms of a step."""
        values = {"loss": loss, "gradient": gradient_norm}
        broken = next((name for name, value in values.items() if not math.isfinite(value)), None)
        if broken is not None:
            beside = f", at a loss of {loss:.4g}" if broken == "gradient" else ""
            said = f"the {broken} of step {step} is {values[broken]}{beside}"
            return [Alarm("not_finite", step, said, values[broken])]
        found = (self._judge(step, name, value) for name, value in values.items())
        return [alarm for alarm in found if alarm is not None]

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return {"earlier": {n: list(v) for n, v in self._earlier.items()}, "high": dict(self._high)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `to_json` returned."""
        for name, values in state["earlier"].items():
            self._earlier[name] = deque(values, maxlen=self._rules.window_steps)
        self._high = dict(state["high"])

    def _judge(self, step: int, name: str, value: float) -> Alarm | None:
        earlier, limit = self._earlier[name], self._rules.spike_deviations
        now = math.log(max(value, 0.0) + _FLOORS[name])
        score = deviations(now, earlier) if len(earlier) >= self._rules.window_steps // 2 else 0.0
        usual = math.exp(median(earlier)) - _FLOORS[name] if earlier else value
        earlier.append(now)
        was_high, self._high[name] = self._high[name], score > limit
        if was_high or score <= limit:
            return None
        kind: AlarmKind = "loss_spike" if name == "loss" else "gradient_spike"
        said = (
            f"the {name} of step {step} is {value:.4g}, {score:.1f} deviations above the usual "
            f"{usual:.4g}"
        )
        return Alarm(kind, step, said, round(score, 2), limit)


class RouterWatch:
    """Finds sparse layers whose router has collapsed, and experts that nobody visits.

    An alarm goes off when `patience_steps` steps in a row show it, and again only after a step that
    did not. A layer whose tokens visit all of its experts has no choice and is not watched.
    """

    def __init__(self, rules: RouterAlarms) -> None:
        self._rules = rules
        self._streaks: dict[str, int] = {}

    def see(self, step: int, routing: Mapping[int, RoutingSums]) -> list[Alarm]:
        """Return the alarms of a step."""
        found = []
        streaks = {}
        for layer, sums in sorted(routing.items()):
            for alarm in self._signs(step, layer, facts_of(sums)):
                name = f"{alarm.kind}/{layer}/{alarm.expert}"
                streaks[name] = self._streaks.get(name, 0) + 1
                if streaks[name] == self._rules.patience_steps:
                    found.append(alarm)
        if routing:
            self._streaks = streaks
        return found

    def to_json(self) -> dict[str, int]:
        """Return the state as a JSON object."""
        return dict(self._streaks)

    def load(self, state: Mapping[str, int]) -> None:
        """Go on from what `to_json` returned."""
        self._streaks = dict(state)

    def _signs(self, step: int, layer: int, facts: LayerFacts | None) -> list[Alarm]:
        """Return what a single step shows, however short it lasts."""
        if facts is None or facts.top_k >= len(facts.load):
            return []
        rules = self._rules
        where, last = f"layer {layer}", f"for {rules.patience_steps} steps"
        share, limit = facts.busiest_share, rules.collapse_share
        found: list[Alarm] = []
        if share >= limit:
            said = f"{where}: {facts.top_k} experts take {share:.1%} of visits {last}"
            found.append(Alarm("collapse", step, said, share, limit, layer))
        share, limit = facts.entropy_share, rules.least_entropy
        if share < limit:
            said = f"{where}: the router's entropy is {share:.1%} of an even one's {last}"
            found.append(Alarm("low_entropy", step, said, share, limit, layer))
        limit = rules.dead_share / len(facts.load)
        for expert in facts.dead(rules.dead_share):
            said = f"{where}: expert {expert} gets {facts.load[expert]:.2%} of visits {last}"
            found.append(Alarm("dead_expert", step, said, facts.load[expert], limit, layer, expert))
        return found


@dataclass(frozen=True)
class LayerFacts:
    """One sparse layer at one step, over all modalities.

    `load` is each expert's share of visits, `busiest_share` that of as many experts as one token
    visits, `entropy_share` the router's mean entropy over that of an even choice.
    """

    top_k: int
    load: tuple[float, ...]
    busiest_share: float
    entropy_share: float

    def dead(self, share: float) -> list[int]:
        """Return the experts with less than this share of an even load."""
        return [expert for expert, load in enumerate(self.load) if load * len(self.load) < share]


def facts_of(sums: RoutingSums) -> LayerFacts | None:
    """Return what a layer's sums say; None where no token passed it."""
    tokens, visits = float(sums.tokens_M.sum()), sums.visits_ME.sum(0).tolist()
    total = sum(visits)
    if not total:
        return None
    top_k = round(total / tokens)
    load = tuple(visit / total for visit in visits)
    entropy = float(sums.entropy_M.sum()) / tokens
    return LayerFacts(
        top_k=top_k,
        load=load,
        busiest_share=sum(sorted(load)[-top_k:]),
        entropy_share=entropy / math.log(len(load)) if len(load) > 1 else 1.0,
    )


def suspects(report: StepReport) -> tuple[Suspect, ...]:
    """Return a step's draws, the worst first: no number before the largest loss per token."""
    found = [
        _suspect(rank, seen, total, tokens)
        for (rank, seen), (total, tokens) in zip(report.seen, report.by_draw, strict=True)
    ]
    return tuple(sorted(found, key=_badness))


def deviations(value: float, earlier: Sequence[float] | deque[float]) -> float:
    """Return by how many robust deviations a value lies above the median of earlier ones."""
    middle = median(earlier)
    spread = median(abs(one - middle) for one in earlier) * _DEVIATION_OF_MAD
    return (value - middle) / max(spread, _LEAST_DEVIATION)


def _suspect(rank: int, seen: Seen, total: float, tokens: int) -> Suspect:
    return Suspect(
        slot=seen.slot,
        rank=rank,
        key=seen.key,
        sample=seen.sample,
        modality=seen.modality,
        source=seen.source,
        tokens=tokens,
        loss=total / tokens if tokens else None,
    )


def _badness(one: Suspect) -> tuple[int, float, int]:
    if one.loss is None:
        return 2, 0.0, one.slot
    return (1, -one.loss, one.slot) if math.isfinite(one.loss) else (0, 0.0, one.slot)


def _json(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
