"""The database: experiments, trials, attempts, metric points and algorithm states, on SQLite, MySQL or PostgreSQL.

`store_of(settings)` and `open_store(url)` are the doors. Imports SQLAlchemy; `import evertune` must not import this
package.
"""

from __future__ import annotations

from evertune.store.engine import Durability
from evertune.store.opening import open_store, store_of
from evertune.store.records import NewExperiment
from evertune.store.repository import Store

__all__ = ["Durability", "NewExperiment", "Store", "open_store", "store_of"]
