"""The queue as streamers and collectors see it, whatever stands behind it."""
