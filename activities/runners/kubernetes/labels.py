"""Names that evertune writes on what it makes in a cluster, and reads back.

An object is ours, and which attempt it runs, by its labels alone: a worker that forgot everything finds it again.
"""

from __future__ import annotations

from evertune.domain.trial import AttemptRef

PREFIX = "evertune.io"
MANAGED_BY = f"{PREFIX}/managed-by"
MANAGER = "evertune"
EXPERIMENT = f"{PREFIX}/experiment"  # its uid, 32 hexadecimal digits
TRIAL = f"{PREFIX}/trial"  # its number
ATTEMPT = f"{PREFIX}/attempt"
DATABASE = f"{PREFIX}/database"  # a worker with another database leaves the object alone
AUDIENCE = PREFIX  # what a pod's token for our gateway is for; the API server takes it for nothing else
SELECTOR = f"{MANAGED_BY}={MANAGER}"


def owned(ref: AttemptRef, database_id: str) -> dict[str, str]:
    """The labels of the object of an attempt and of every pod of it."""
    return {
        MANAGED_BY: MANAGER,
        EXPERIMENT: ref.experiment_uid,
        TRIAL: str(ref.number),
        ATTEMPT: str(ref.attempt),
        DATABASE: database_id,
    }


def object_name(ref: AttemptRef) -> str:
    """Katib's: the trial's name. Later attempts have objects of their own, so that none is executed twice."""
    return ref.trial_name if ref.attempt == 0 else f"{ref.trial_name}-r{ref.attempt}"
