"""The composition root: the only place that knows every part. `python -m evertune.app worker` runs it."""
