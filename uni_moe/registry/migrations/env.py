"""What Alembic runs: revisions, over the connection and in the transaction of whoever asks."""

from __future__ import annotations

from alembic import context

from uni_moe.registry.schema import METADATA

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
