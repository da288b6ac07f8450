"""Rules that stop trials early, one module each; `registry` finds them by name."""
