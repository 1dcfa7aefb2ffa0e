"""Dagster code location: thin assets over `steps`, checks from the table declarations, automation.

`steps` holds the work and never imports dagster; nothing else in the repository does either.
"""
