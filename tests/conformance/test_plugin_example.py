"""What a plug-in's author writes to test a plug-in: this file."""

from pathlib import Path

from lmlab.testing import add_to

add_to(globals(), plugin=str(Path(__file__).parent / "plugin_example.py"))
