"""For all tests: signals as a terminal gives them. A shell starts what it puts into the background with Ctrl-C ignored,
and programs that the tests start would inherit that."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
