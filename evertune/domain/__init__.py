"""Plain values that every layer speaks: trials, spaces, metrics, outcomes. No I/O, no framework."""
