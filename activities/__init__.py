"""Side effects, each idempotent: admit, suggest, run and stop trials, record. Temporal calls them for `workflows`."""
