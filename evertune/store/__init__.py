"""The database: experiments, trials, attempts, metric points and algorithm states, on SQLite, MySQL or PostgreSQL.

`open_store(url)` is the door. Imports SQLAlchemy; `import evertune` must not import this package.
"""

from __future__ import annotations

from evertune.store.engine import Durability
from evertune.store.records import NewExperiment
from evertune.store.repository import Store, open_store

__all__ = ["Durability", "NewExperiment", "Store", "open_store"]
