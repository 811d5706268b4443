"""What the contract finds in an example's samples: some are refused, each for a reason. Pure."""

from __future__ import annotations

import random

from uni_moe.records import MODALITIES, ContractReport, Reason, RuleVerdict, SetCount, sha256_text

CONTRACT, VERSION, RULES = "manifest", 2, sha256_text("an example's rules")
_SHARES = {"text": 1200, "image": 1160, "video": 1060, "audio": 960, "speech": 1260}
_REASONS = {
    "too_short": (
        "a sound of less than 0.1 s holds no word",
        "cut longer pieces",
        ("audio", "speech"),
    ),
    "no_license": (
        "what has no licence may not be published",
        "name one in the source",
        ("text", "image", "video"),
    ),
    "too_small": (
        "a picture of few pixels shows nothing",
        "take the original",
        ("image", "video"),
    ),
    "empty_answer": ("there is nothing to learn from it", "fill the answer in", MODALITIES),
}


def contract_report(seed: int) -> ContractReport:
    """Return what was found in the samples of all modalities."""
    dice = random.Random(seed)
    sets = [_counted(name, dice) for name in MODALITIES]
    checked = sum(one.listed for one in sets)
    found = {
        code: sum(one.reasons.get(code, 0) for one in sets)
        for code in _REASONS
        if any(code in one.reasons for one in sets)
    }
    return ContractReport(
        contract=CONTRACT,
        version=VERSION,
        contract_sha256=RULES,
        kept=True,
        breaches=(),
        rules=tuple(_rule(code, checked, found.get(code, 0)) for code in _REASONS),
        reasons={code: _reason(code, count) for code, count in found.items()},
        sets=tuple(sets),
    )


def _counted(modality: str, dice: random.Random) -> SetCount:
    listed = _SHARES[modality] + dice.randrange(300)
    reasons = {
        code: dice.randrange(1, 9)
        for code, (*_, names) in _REASONS.items()
        if modality in names and dice.random() < 0.5
    }
    refused = sum(reasons.values())
    accepted = listed - refused
    splits = {"test": 300, "train": accepted - 360, "validation": 60}
    return SetCount(modality, "playground", listed, accepted, refused, reasons, splits)


def _rule(code: str, checked: int, failed: int) -> RuleVerdict:
    why, remedy, _ = _REASONS[code]
    named = _named(code, failed)
    return RuleVerdict(code, "sample", code.replace("_", " "), why, remedy, checked, failed, named)


def _reason(code: str, samples: int) -> Reason:
    why, remedy, _ = _REASONS[code]
    return Reason(why, remedy, "contract", samples, _named(code, samples))


def _named(code: str, count: int) -> tuple[str, ...]:
    return tuple(f"playground/train/{code}-{place:05d}" for place in range(min(3, count)))
