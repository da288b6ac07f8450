"""Search algorithms, one module each, and the registry that finds them. Pure functions of (problem, history, state)."""
