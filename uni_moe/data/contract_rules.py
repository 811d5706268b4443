"""A contract's rules as data: what a contract file may say, closed to everything else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from uni_moe.errors import ConfigError, bullets
from uni_moe.records import canonical_json, sha256_text
from uni_moe.yaml_text import parse_yaml

Level = Literal["sample", "table"]
LEVELS: tuple[Level, ...] = get_args(Level)

# What each level's rules may look at: flat columns only, since expectations on nested columns
# pass in silence.
SAMPLE_COLUMNS = (
    *("key", "id", "source", "license", "subject", "split", "modality", "task", "group", "metric"),
    *("caption", "transcript", "problem_codes", "copy_of", "n_media", "n_image", "n_video"),
    *("n_audio", "n_speech", "slots_match", "n_turns", "first_role", "last_role"),
    *("roles_alternate", "prompt_chars", "answer_chars", "longest_answer_chars"),
    *("media_bytes", "media_found", "decode_ok", "width_px", "widest_px", "height_px"),
    *("highest_px", "frames", "duration_s", "shortest_s", "sample_rate_hz", "highest_rate_hz"),
    *("channels", "codec", "media_sha256"),
)
TABLE_COLUMNS = (
    *("scope", "name", "size", "listed", "accepted", "refused", "refused_share"),
    *("train", "validation", "test"),
)
_COLUMNS: Mapping[Level, tuple[str, ...]] = {"sample": SAMPLE_COLUMNS, "table": TABLE_COLUMNS}
_CODE = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Rule:
    """One rule: an expectation, the rows it is for, and its reasons.

    `when` maps a column to the values that it must have for the rule to apply.
    """

    type: str
    kwargs: Mapping[str, Any]
    when: Mapping[str, tuple[Any, ...]]
    code: str
    level: Level
    why: str
    remedy: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rule judges."""
        named = [
            self.kwargs[name] for name in ("column", "column_A", "column_B") if name in self.kwargs
        ]
        return (*named, *self.kwargs.get("column_list", ()))

    @property
    def text(self) -> str:
        """The rule in one line, as a person reads it."""
        rest = {key: value for key, value in self.kwargs.items() if not key.startswith("column")}
        said = ", ".join(f"{key} {_said(value)}" for key, value in rest.items())
        when = " and ".join(f"{key} is {_said(values)}" for key, values in self.when.items())
        subject = ", ".join(self.columns)
        verb = self.type.removeprefix("expect_").replace("_", " ")
        return (
            f"{subject}: {verb}"
            + (f" ({said})" if said else "")
            + (f", when {when}" if when else "")
        )


@dataclass(frozen=True)
class Contract:
    """The declared rules that a table must keep. Its hash is of what it says, comments aside."""

    name: str
    version: int
    rules: tuple[Rule, ...]

    @property
    def sha256(self) -> str:
        """The hash of all that the contract says."""
        return sha256_text(canonical_json(asdict(self)))


def load_contract(path: Path, problem_of: Callable[[Rule], str | None]) -> Contract:
    """Read a contract file; `problem_of` says whether an expectation can be built of a rule.

    Raises:
        ConfigError: the file is missing or not YAML, or lists every problem that it has.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The contract {path} cannot be read: {error}",
            cause="there is no such file, or it is not YAML.",
            remedy="correct contract.manifest in params.yaml, or mend the file.",
        ) from error
    contract, problems = parse_contract(data)
    problems += [
        f"{rule.code}: {problem}" for rule in contract.rules if (problem := problem_of(rule))
    ]
    if problems:
        raise ConfigError(
            f"The contract {path} has {len(problems)} problem(s):{bullets(problems)}",
            cause="keys that are unknown, missing or of the wrong type, or rules that cannot run.",
            remedy="mend the rules named above; the head of the file says what a rule may hold.",
        )
    return contract


def parse_contract(data: object) -> tuple[Contract, list[str]]:
    """Return the rules that are well formed, and every problem of the others."""
    problems: list[str] = []
    top = _closed(data, "the file", ("name", "version", "expectations"), (), problems)
    name, version, listed = top.get("name"), top.get("version"), top.get("expectations")
    if "name" in top and (not isinstance(name, str) or not name):
        problems.append(f"name: expected text, found {name!r}")
    if "version" in top and (not isinstance(version, int) or isinstance(version, bool)):
        problems.append(f"version: expected a whole number, found {version!r}")
    if "expectations" in top and (not isinstance(listed, list) or not listed):
        problems.append("expectations: expected a list with at least one rule")
    rules = [
        rule
        for index, item in enumerate(listed if isinstance(listed, list) else [])
        if (rule := _rule(item, f"expectations[{index}]", problems)) is not None
    ]
    codes = [rule.code for rule in rules]
    problems += [
        f"{code}: two rules have this code" for code in sorted(set(codes)) if codes.count(code) > 1
    ]
    return Contract(str(name), cast("int", version), tuple(rules)), problems


def _rule(item: object, where: str, problems: list[str]) -> Rule | None:
    before = len(problems)
    data = _closed(item, where, ("type", "kwargs", "meta"), ("when",), problems)
    meta = _closed(data.get("meta", {}), f"{where}.meta", _META, (), problems) if data else {}
    texts = {"type": data.get("type"), **{f"meta.{name}": meta.get(name) for name in _META}}
    problems += [
        f"{where}.{name}: expected text, found {value!r}"
        for name, value in texts.items()
        if name.rpartition(".")[2] in {**data, **meta}
        and (not isinstance(value, str) or not value.strip())
    ]
    if len(problems) > before:
        return None
    if meta["level"] not in LEVELS:
        problems.append(f"{where}.meta.level: {meta['level']!r} is not one of {', '.join(LEVELS)}")
    if not _CODE.fullmatch(meta["code"]):
        problems.append(f"{where}.meta.code: {meta['code']!r} is not lower_case_with_underscores")
    if not isinstance(data["kwargs"], Mapping) or not isinstance(data.get("when", {}), Mapping):
        problems.append(f"{where}: `kwargs` and `when` are keys with values")
    if len(problems) > before:
        return None
    rule = Rule(
        type=data["type"],
        kwargs=dict(data["kwargs"]),
        when={column: _values(value) for column, value in data.get("when", {}).items()},
        code=meta["code"],
        level=meta["level"],
        why=meta["why"],
        remedy=meta["remedy"],
    )
    problems += [f"{rule.code}: {problem}" for problem in _column_problems(rule)]
    return rule if len(problems) == before else None


_META = ("code", "level", "why", "remedy")


def _column_problems(rule: Rule) -> list[str]:
    known = _COLUMNS[rule.level]
    problems = [
        f"no column {column!r} at the level {rule.level}"
        for column in (*rule.columns, *rule.when)
        if column not in known
    ]
    problems += [f"`when` {column}: no value" for column, values in rule.when.items() if not values]
    if not rule.columns:
        problems.append("it names no column in `kwargs`")
    if "mostly" in rule.kwargs:
        problems.append("`mostly` would excuse rows; write a table rule about a share instead")
    return problems


def _closed(
    data: object, where: str, needed: Sequence[str], allowed: Sequence[str], problems: list[str]
) -> Mapping[str, Any]:
    """Return keys and values; note unknown and missing keys."""
    if not isinstance(data, Mapping):
        problems.append(f"{where}: expected keys and values, found {data!r}")
        return {}
    problems += [f"{where}: unknown key {key!r}" for key in data if key not in (*needed, *allowed)]
    problems += [f"{where}: {key!r} is missing" for key in needed if key not in data]
    return data


def _values(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _said(value: object) -> str:
    if isinstance(value, list | tuple):
        return " or ".join(_said(item) for item in value)
    return "absent" if value is None else str(value)
