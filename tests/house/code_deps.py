"""Which source files each stage imports, and the lines of dvc.yaml that say so.

Run as a program, it writes these lines: `python -m tests.house.code_deps`.
"""

from __future__ import annotations

import re
from pathlib import Path

import grimp

from uni_moe.artifacts import AROUND
from uni_moe.cli_stages import STAGES

ROOT = Path(__file__).parents[2]
GRAPH = ROOT / "dvc.yaml"
PREFIX = "uni_moe/"


def imported_files(stage: str, graph: grimp.ImportGraph) -> list[str]:
    """Return the files of uni_moe that a stage's function can import, itself included.

    They are what a card's code hash covers: importing a module also runs the packages it lies in.
    """
    module = STAGES[stage][0].partition(":")[0]
    modules = {module, "uni_moe.runs", "uni_moe.stage", *graph.find_upstream_modules(module)}
    modules -= set(AROUND)
    modules |= {package for name in modules for package in _packages(name)}
    files = []
    for name in sorted(modules):
        path = Path(*name.split(".")[1:])
        is_package = (ROOT / "uni_moe" / path / "__init__.py").is_file()
        files.append(str(path / "__init__.py" if is_package else path.with_suffix(".py")))
        compiled = sorted((ROOT / "uni_moe" / path).glob("*.[ch]")) if is_package else []
        files += [str(path / source.name) for source in compiled]
    return files


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def import_graph() -> grimp.ImportGraph:
    """Return the static import graph of our code, imports inside functions included."""
    return grimp.build_graph("uni_moe", exclude_type_checking_imports=True)


def with_code_deps(text: str) -> str:
    """Return dvc.yaml with the lines of code as they should be."""
    graph = import_graph()
    lines = [line for line in text.splitlines() if not line.strip().startswith(f"- {PREFIX}")]
    out: list[str] = []
    stage, pending, indent = "", False, ""
    for line in lines:
        heading = re.fullmatch(r"  (\w+):", line)
        if heading:
            stage = heading[1]
        if pending and re.match(r"\s*outs:", line):
            out += [f"{indent}  - {PREFIX}{file}" for file in imported_files(stage, graph)]
            pending = False
        found = re.fullmatch(r"(\s*)deps:", line)
        if found:
            pending, indent = True, found[1]
        out.append(line)
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    GRAPH.write_text(with_code_deps(GRAPH.read_text(encoding="utf-8")), encoding="utf-8")
