"""All tables of the index, wherever they are told: a module that tells some is imported here."""

from __future__ import annotations

from uni_moe.registry import metric_tables, tables, tables_data
from uni_moe.registry.base import Base

METADATA = Base.metadata
MODULES = (tables, metric_tables, tables_data)
