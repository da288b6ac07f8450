"""For all tests: signals as a terminal gives them, and examples that may take their time.

A shell starts what it puts into the background with Ctrl-C ignored, and programs that tests start would inherit that.
Tests run beside each other, so that the clock says nothing about one example of a property.
"""

from __future__ import annotations

import signal

from hypothesis import settings

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")
