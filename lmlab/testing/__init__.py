"""Conformance: what must be true of every component, as tests for lmlab's own and for a plug-in's.

    # tests/test_my_plugin.py of a plug-in; pytest finds one test per component and law
    from lmlab.testing import add_to

    add_to(globals(), plugin="my_plugin.py")

See `lmlab.testing.tiny` for what a component says about its own smallest configuration.
"""

from lmlab.testing.conformance import Check, add_to, checks, checks_of_plugin

__all__ = ["Check", "add_to", "checks", "checks_of_plugin"]
