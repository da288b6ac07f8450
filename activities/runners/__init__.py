"""Where attempts run. One package per backend, each an `evertune.protocols.TrialRunner`."""
