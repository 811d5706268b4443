"""What models of a history answer: better over the years, not from one to the next. Pure.

An item has a difficulty; a model is right where its skill and its luck go beyond that. So two
models differ on few items, as two trainings from the same data do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uni_moe.artifacts import json_text
from uni_moe.records import MODALITIES, EvalReport, Score, sha256_text
from uni_moe.registry.gate import Exam

ITEMS = 200  # of a modality
SLOTS = ("base", "image", "video", "audio", "speech")
LAYERS = ("0", "2")
_TASKS = {
    "text": ("arithmetic", "words"),
    "image": ("colour", "shape", "count"),
    "video": ("motion", "order"),
    "audio": ("sound", "loudness"),
    "speech": ("words", "speaker"),
}
_WORDS = ("red", "blue", "green", "circle", "square", "three", "left", "bell", "loud", "seven")
_CHANCE = 0.1
_BEST = {"text": 0.95, "image": 0.97, "video": 0.93, "audio": 0.88, "speech": 0.94}
_LUCK, _CHANGES = 0.05, 0.01  # at an item, beside difficulties from 0 to 1: of its data, of it all
_Z = 1.96


@dataclass(frozen=True)
class Skill:
    """How good a model is: modality -> share of difficulties that it masters, and its luck."""

    of: Mapping[str, float]
    luck: Mapping[str, int]  # modality -> what its dice begin at
    seed: int

    def later(self, touched: Sequence[str], pace: float, dice: np.random.Generator) -> Skill:
        """Return the skill after a retraining: better where data are new, most of the time."""
        new, luck = dict(self.of), dict(self.luck)
        for name in touched:
            step = pace * (_BEST[name] - new[name]) + dice.normal(0.0, 0.01)
            new[name] = min(0.98, max(0.3, new[name] + step))
            luck[name] = int(dice.integers(2**31))
        return Skill(new, luck, int(dice.integers(2**31)))


def first_skill(seed: int) -> Skill:
    """Return the skill of a first model."""
    begin = {"text": 0.6, "image": 0.62, "video": 0.5, "audio": 0.46, "speech": 0.52}
    return Skill(begin, {name: seed + place for place, name in enumerate(begin)}, seed)


@dataclass(frozen=True)
class Sitting:
    """A model's exam: its report, and modality -> score of each item with media swapped."""

    exam: Exam
    swapped: Mapping[str, Sequence[float]]

    def of(self, model: str) -> Sitting:
        """Return the exam as that of a model, whose id is known only now."""
        report = replace(self.exam.report, model=model)
        return replace(self, exam=replace(self.exam, report=report))


def sit(skill: Skill) -> Sitting:
    """Let a model answer all items."""
    dice = np.random.default_rng(skill.seed)
    scores, swapped = {}, {}
    for place, name in enumerate(MODALITIES):
        difficulty = np.random.default_rng(place).random(ITEMS)
        own = np.random.default_rng(skill.luck[name]).normal(0.0, _LUCK, ITEMS)
        luck = own + dice.normal(0.0, _CHANGES, ITEMS)
        scores[name] = (difficulty + luck < skill.of[name]).astype(float).tolist()
        if name != "text":
            swapped[name] = (dice.random(ITEMS) < 0.3).astype(float).tolist()
    modalities = {name: _score(scores[name], swapped.get(name)) for name in MODALITIES}
    means = [score.score for score in modalities.values()]
    report = EvalReport(
        model="",
        items={name: sha256_text(f"items of {name}") for name in MODALITIES},
        modalities=modalities,
        tasks=dict(_tasks(scores)),
        mean=sum(means) / len(means),
        bias=max(means) - min(means),
        losses=_losses(skill),
        slots=SLOTS,
        load=_load(dice),
        knock_out=_knock_out(dice),
    )
    return Sitting(Exam(report, scores), swapped)


def texts(sitting: Sitting) -> dict[str, str]:
    """Return the files of a report's folder, the card aside."""
    rows = (json.dumps(row, ensure_ascii=False, sort_keys=True) for row in answers(sitting))
    report = json_text(sitting.exam.report.to_json())
    return {"report.json": report, "answers.jsonl": "\n".join(rows) + "\n"}


def answers(sitting: Sitting) -> list[dict[str, Any]]:
    """Return the lines of a report's answers, as the harness writes them."""
    rows = []
    for modality, scores in sitting.exam.scores.items():
        for place, score in enumerate(scores):
            reference = _WORDS[place % len(_WORDS)]
            wrong = _WORDS[(place + 3) % len(_WORDS)]
            swapped = sitting.swapped.get(modality)
            task = _task(modality, place)
            rows.append(
                {
                    "key": f"playground/test/{modality}-{place:05d}",
                    "id": f"{place:06d}{sha256_text(f'{modality} {place}')[6:]}",
                    "task": task,
                    "group": None,
                    "modality": modality,
                    "prompt": f"Question {place} about {task.partition('/')[2]}: what is it?",
                    "reference": reference,
                    "answer": reference if score else wrong,
                    "metric": "exact_match",
                    "correct": score == 1.0,
                    "score": score,
                    "swapped_answer": None if swapped is None else wrong,
                    "swapped_score": None if swapped is None else swapped[place],
                    "question_only": wrong,
                }
            )
    return rows


def _task(modality: str, place: int) -> str:
    names = _TASKS[modality]
    return f"playground/{names[place % len(names)]}"


def _tasks(scores: Mapping[str, Sequence[float]]) -> list[tuple[str, Score]]:
    own: dict[str, list[float]] = {}
    for modality, of_items in scores.items():
        for place, score in enumerate(of_items):
            own.setdefault(_task(modality, place), []).append(score)
    return [(name, _score(found, None)) for name, found in own.items()]


def _score(scores: Sequence[float], swapped: Sequence[float] | None) -> Score:
    """Return a score with Wilson's interval."""
    n, share = len(scores), sum(scores) / len(scores)
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return Score(
        n=n,
        score=share,
        low=max(0.0, middle - half),
        high=min(1.0, middle + half),
        chance=_CHANCE,
        majority=0.12,
        question_only=0.14,
        swapped=None if swapped is None else sum(swapped) / n,
    )


def _losses(skill: Skill) -> dict[str, dict[str, dict[str, float]]]:
    after = {name: 2.4 - 2.2 * share for name, share in skill.of.items()}
    return {"tune": {name: {"before": 2.6, "after": loss} for name, loss in after.items()}}


def _load(dice: np.random.Generator) -> dict[str, dict[str, list[float]]]:
    """Return shares of visits: a modality prefers its own expert; some experts are dead."""
    dead = int(dice.integers(len(SLOTS))) if dice.random() < 0.15 else None
    found: dict[str, dict[str, list[float]]] = {}
    for name in MODALITIES:
        found[name] = {}
        for layer in LAYERS:
            pull = np.ones(len(SLOTS))
            pull[SLOTS.index(name) if name in SLOTS else 0] = 3.0
            if dead is not None and layer == LAYERS[-1]:
                pull[dead] = 0.01
            share = dice.dirichlet(pull * 12)
            found[name][layer] = [round(float(one), 4) for one in share]
    return found


def _knock_out(dice: np.random.Generator) -> dict[str, dict[str, list[float]]]:
    drop = {}
    for name in MODALITIES:
        own = SLOTS.index(name) if name in SLOTS else 0
        pull = np.where(np.arange(len(SLOTS)) == own, 0.25, 0.02)
        drop[name] = {
            layer: [round(float(one), 4) for one in pull * dice.random(len(SLOTS))]
            for layer in LAYERS
        }
    return drop
