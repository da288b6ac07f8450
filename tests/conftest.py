"""For all tests: signals as a terminal gives them, and examples that may take their time.

A shell starts what it puts into the background with Ctrl-C ignored, and programs that tests start would inherit that.
Tests run beside each other, so that the clock says nothing about one example of a property. Examples are the same in
every run, so that what fails was caused by a change; to look for others: `pytest --hypothesis-profile searching`.
"""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

unhurried = settings(settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.register_profile("steady", unhurried, derandomize=True)
settings.register_profile("searching", unhurried, derandomize=False)
settings.load_profile("steady")
