"""Benchmarks for users: what their machine, database and settings can do."""
