"""A plugin for evertune: an algorithm, `one-plus-one`, and an early stopping rule, `worsening`."""
