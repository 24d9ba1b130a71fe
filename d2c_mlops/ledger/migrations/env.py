"""Run the migrations on the connection that was handed over."""

from alembic import context

from d2c_mlops.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
