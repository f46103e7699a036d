"""What reads a source and publishes its batches: the rules of pacing, and the service."""

__all__: list[str] = []
