"""The dashboard: four pages at the gateway's root, in plain JavaScript modules that it serves."""
