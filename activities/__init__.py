"""Side effects, each idempotent: admit, suggest, run and stop trials, record. Called by `workflows` through Temporal."""
