"""Where records come from: a CSV of DCGM metrics that is replayed, and a generator of such."""

__all__: list[str] = []
