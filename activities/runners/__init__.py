"""Part of the evertune application; see design notes in docs/architecture.md."""
