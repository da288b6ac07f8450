"""The database: experiments, trials, attempts, metric points and algorithm states, on SQLite, MySQL or PostgreSQL.

`store_of(settings)` and `open_store(url)` are the doors. Imports SQLAlchemy; `import evertune` must not import this
package.
"""

from __future__ import annotations

from evertune.store.engine import Durability
from evertune.store.records import NewExperiment
from evertune.store.repository import Store, open_store, store_of

__all__ = ["Durability", "NewExperiment", "Store", "open_store", "store_of"]
