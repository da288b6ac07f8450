"""Makes an attempt's object, once: posted, or found under its name with our labels. Called by `runner`.

What the API server refuses for good is a LaunchError with its own sentence; what may change - a quota that is used up,
a name that is being freed - is waited for, and said. A post that got no answer is repeated: the name makes it one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.discovery import Resource
from activities.runners.kubernetes.riding import AWAY_S, LONGEST_PAUSE_S, TRY_S, away, ride, sentence
from activities.runners.kubernetes.sentences import shown, without_name
from evertune.domain.trial import AttemptRef
from evertune.errors import LaunchError, UnavailableError
from evertune.protocols import JsonDict

QUOTA_S = 1800.0  # how long a quota may be used up before the attempt cannot start
AGAIN_S = 2.0
STRICT = {"fieldManager": "evertune", "fieldValidation": "Strict"}


class NoRestartPolicyError(Exception):
    """This kind's schema drops the field that makes a container of ours a native sidecar."""


async def make(
    api: Api,
    resource: Resource,
    manifest: JsonDict,
    ref: AttemptRef,
    database_id: str,
    *,
    say: Callable[[str], None],
    unwanted: Callable[[], Awaitable[bool]],
) -> JsonDict | None:
    """The object, as the API server has it; None when it became `unwanted` before it was there.

    Raises LaunchError, NoRestartPolicyError, UnavailableError.
    """
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    loop = asyncio.get_running_loop()
    quota_end = loop.time() + QUOTA_S

    away_since, away_end, pause = datetime.now(UTC), loop.time() + AWAY_S, AGAIN_S
    while not await unwanted():
        try:
            return await api.call("POST", resource.path(namespace), query=STRICT, body=manifest, patience_s=TRY_S)
        except ApiError as error:
            if away(error):
                say(sentence(api, error, away_since))
                if loop.time() >= away_end:
                    raise UnavailableError(sentence(api, error, away_since)) from None
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE_S, 1.5 * pause)
                continue
            away_since, away_end, pause = datetime.now(UTC), loop.time() + AWAY_S, AGAIN_S
            if error.status == 409 and error.reason == "AlreadyExists":
                found = await find(api, resource, namespace, name, say=say)
                if found is None:
                    continue
                if mine(found, ref, database_id):
                    return found
                if "deletionTimestamp" not in found["metadata"]:
                    raise taken(resource, found) from None
                say(f"Pending: the name {name} is being freed")
            elif error.status == 409 or (quota(error) and loop.time() < quota_end):
                say(shown(f"Pending: {error.message}"))
            elif no_restart_policy(error):
                raise NoRestartPolicyError from None
            else:
                raise refused(error, resource, namespace, name) from None
        await asyncio.sleep(AGAIN_S)
    return None


def no_restart_policy(error: ApiError) -> bool:
    """Whether strict validation stumbled over a native sidecar, which this kind's schema does not know."""
    return error.status == 400 and "restartPolicy" in error.message and "initContainers" in error.message


def quota(error: ApiError) -> bool:
    """Whether a quota is used up, which may pass."""
    return error.status == 403 and "exceeded quota" in error.message


async def find(
    api: Api, resource: Resource, namespace: str, name: str, *, say: Callable[[str], None]
) -> JsonDict | None:
    """The object of that name, None without one. Raises ApiError, UnavailableError."""
    try:
        return await ride(api, say, lambda: api.call("GET", resource.path(namespace, name), patience_s=TRY_S))
    except ApiError as error:
        if error.status != 404:
            raise
        return None


def mine(obj: JsonDict, ref: AttemptRef, database_id: str) -> bool:
    """Whether the object is that of this attempt: by its labels."""
    return labels.owned(ref, database_id).items() <= (obj["metadata"].get("labels") or {}).items()


def taken(resource: Resource, obj: JsonDict) -> LaunchError:
    told = obj["metadata"].get("labels") or {}
    whose = "something else"
    if told.get(labels.MANAGED_BY) == labels.MANAGER:
        whose = f"experiment {told.get(labels.EXPERIMENT)}"
        if labels.DATABASE in told:
            whose += f" of database {told[labels.DATABASE]}"
    return LaunchError(
        f"the name of the {resource.kind} is taken by {whose}",
        hint="delete that object, or give the experiment another name",
    )


def refused(error: ApiError, resource: Resource, namespace: str, name: str) -> LaunchError:
    """The API server's own sentence, the same for every trial, and what mends it where that is known."""
    message = without_name(error.message, name)
    hint = None
    if error.status == 403 and "cannot create resource" in error.message:
        group = resource.group
        hint = (
            f'the worker\'s Role in {namespace} lacks {{apiGroups: ["{group}"], resources: ["{resource.plural}"],'
            " verbs: [create, get, list, watch, delete, patch]}"
        )
    elif error.status == 404:
        hint = f"create it: kubectl create namespace {namespace}" if "namespaces" in error.message else None
    return LaunchError(message, hint)
