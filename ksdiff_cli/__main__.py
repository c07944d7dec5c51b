"""``python -m ksdiff_cli`` is the ksdiff program."""

from ksdiff_cli.main import app

app()
