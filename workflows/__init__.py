"""Deterministic code only: what happens next in an experiment. Side effects are activities (`evertune.contracts`)."""
