"""What telemq is measured beside: each queue used as its makers recommend, and none of it shipped.

Every module offers carriers (`telemq.bench.carrier`), skipped with a reason where not installed.
"""
