"""How things look: shapes, numbers, tables, charts, and the machine-readable forms. Pure functions, no database.

Lines are lists of (text, style) segments, the same that `evertune.spec.report` gives; `printer` alone knows terminals.
"""
