"""Texts in one order, whatever the database: by their code points, as Python sorts them.

PostgreSQL orders by the collation that its database was made with, which may pass over punctuation.
Pages join its rows with lines that Python sorts, so both must agree.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class ByCode(FunctionElement[str]):
    """A text that is compared and ordered by its code points."""

    inherit_cache = True
    type = Text()


@compiles(ByCode)
def _as_it_is(element: ByCode, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    """SQLite compares the bytes of UTF-8, which is the same order; indexes are followed."""
    return compiler.process(element.clauses, **options)


@compiles(ByCode, "postgresql")
def _collated(element: ByCode, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    return f'({compiler.process(element.clauses, **options)} COLLATE "C")'
