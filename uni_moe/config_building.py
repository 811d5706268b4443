"""Plain data into typed sections: every problem is noted with its place."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml

from uni_moe.errors import ConfigError, bullets
from uni_moe.yaml_text import parse_yaml

T = TypeVar("T")


def build_file(kind: type[T], path: Path, rules: Callable[[T], list[str]], *, chapter: str) -> T:
    """Read a small settings file: its types by `kind`, what they cannot say by `rules`.

    Args:
        kind: a dataclass, all of whose fields have defaults.
        path: a YAML file.
        rules: returns what is wrong with values of the right types.
        chapter: of the README, where examples stand.

    Raises:
        ConfigError: it is not YAML, or lists every key that is wrong.
    """
    problems: list[str] = []
    try:
        data = parse_yaml(path.read_text(encoding="utf-8")) or {}
        found = cast("T", build(kind, data, "", problems))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problems.append(str(error))
    problems = problems or rules(found)
    if problems:
        raise ConfigError(
            f"{path} has {len(problems)} problem(s):{bullets(problems)}",
            cause="keys that are unknown or of the wrong type, or values that do not go together.",
            remedy=f"mend the lines named above; README.md, “{chapter}”, has examples.",
        )
    return found


def build(kind: Any, value: object, where: str, problems: list[str]) -> Any:  # noqa: ANN401, PLR0911, C901
    """Turn plain data into the type `kind`; note every problem with its place."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _build_union(arguments, value, where, problems)
    if is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where, problems)
    if origin is Literal:
        if value not in arguments:
            problems.append(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            problems.append(f"{where}: expected a list, found {value!r}")
            return ()
        return tuple(
            build(arguments[0], item, f"{where}[{i}]", problems) for i, item in enumerate(value)
        )
    if origin is Mapping or origin is dict:
        if not isinstance(value, Mapping):
            problems.append(f"{where}: expected keys and values, found {value!r}")
            return {}
        return {
            build(arguments[0], key, f"{where} (key)", problems): build(
                arguments[1], item, f"{where}.{key}", problems
            )
            for key, item in value.items()
        }
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        hint = ""
        if kind is float and isinstance(value, str) and _is_number(value):
            hint = " (YAML reads 1e-4 as text; write 1.0e-4)"
        problems.append(f"{where}: expected {_name(kind)}, found {value!r}{hint}")
    return value


def _build_union(
    arguments: tuple[Any, ...], value: object, where: str, problems: list[str]
) -> object:
    if value is None and type(None) in arguments:
        return None
    choices = [argument for argument in arguments if argument is not type(None)]
    if len(choices) == 1:
        return build(choices[0], value, where, problems)
    named = [choice for choice in choices if typing.get_origin(choice) is Literal]
    if named:  # a name, or what it stands for
        others = [choice for choice in choices if choice not in named]
        return build((named if isinstance(value, str) else others)[0], value, where, problems)
    kinds = {typing.get_args(typing.get_type_hints(c)["kind"])[0]: c for c in choices}
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in kinds:
        problems.append(f"{where}.kind: {kind!r} is not one of {', '.join(map(repr, kinds))}")
        return None
    return build(kinds[kind], value, where, problems)


def _build_dataclass(
    kind: Callable[..., object], value: object, where: str, problems: list[str]
) -> object:
    if not isinstance(value, Mapping):
        problems.append(f"{where or 'the file'}: expected keys and values, found {value!r}")
        return None
    hints = typing.get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for key in value:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            problems.append(
                f"{prefix}{key}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    built = {}
    for item in fields(kind):  # type: ignore[arg-type] # a dataclass, checked by the caller
        if item.name in value:
            place = f"{prefix}{item.name}"
            built[item.name] = build(hints[item.name], value[item.name], place, problems)
        elif item.default is MISSING and item.default_factory is MISSING:
            problems.append(f"{prefix}{item.name}: missing")
            built[item.name] = None
    return kind(**built)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _name(kind: object) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(typing.cast("type", kind), str(kind))
