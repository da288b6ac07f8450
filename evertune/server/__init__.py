"""The HTTP side of evertune: today the ingest gateway, to which trials and their collectors report.

`python -m evertune.server` runs it (`evertune server`, the stack's parent). It imports nothing heavy until the first
report comes: a laptop whose trials are all local never pays for it.
"""
