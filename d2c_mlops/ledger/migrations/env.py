"""Run the migrations on the given connection."""

from alembic import context

from d2c_mlops.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
