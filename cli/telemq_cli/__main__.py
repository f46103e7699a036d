"""``python -m telemq_cli``: the same as ``telemq``, for processes that start one another."""

from telemq_cli.main import app

app(prog_name="telemq")
