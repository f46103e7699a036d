"""HTTP as a way in and out of the broker, for those with only curl (docs/ways.md)."""
