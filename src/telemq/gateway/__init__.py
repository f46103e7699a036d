"""The REST API: what the store holds, over HTTP, with its own documentation."""
