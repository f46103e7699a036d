"""Takes batches from the broker, stores them in Postgres, and settles them after the commit."""
