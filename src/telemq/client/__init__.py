"""A peer's side of the wire protocol: pure rules for producers and consumers, and the socket."""
