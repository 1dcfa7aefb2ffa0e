"""`python -m aegisops.cli` is `aegisops`."""

from aegisops.cli import app

app()
