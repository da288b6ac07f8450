"""Two homes on one Temporal never mix: every activity asks here first whether the experiment is its worker's."""

from __future__ import annotations

from evertune.errors import WrongDatabaseError
from evertune.store import Store


def check_database(store: Store, database_id: str) -> None:
    """Raises WrongDatabaseError, which is retried until the right worker takes the task."""
    if store.database_id != database_id:
        raise WrongDatabaseError(
            f"this worker has database {store.database_id[:8]}, but the experiment lives in {database_id[:8]}",
            hint="stop this worker, or give it the experiment's EVERTUNE_DATABASE_URL",
        )
