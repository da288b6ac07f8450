"""The state of the fake API server: objects with versions, their history, owners, finalizers and namespaces.

Called by the HTTP side, by the controllers and kubelet of the fake, and by tests that play one of them. It is
synchronous and belongs to one event loop. An object in it is never changed in place, so that it can be handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from evertune.testing.kubernetes import fields
from evertune.testing.kubernetes.defaults import check_fixed, defaulted
from evertune.testing.kubernetes.objects import (
    KINDS,
    JsonDict,
    Kind,
    Refused,
    deleting,
    invalid,
    merged,
    not_found,
    timestamp,
)

Key = tuple[str, str]  # namespace ("" for the cluster's own objects), name
Admission = Callable[[str, JsonDict], str | None]


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the history. `before` is None for an object that is new."""

    version: int
    type: str
    kind: Kind
    after: JsonDict
    before: JsonDict | None


class Watcher:
    """Receives the changes of one kind, or of all kinds, from now on."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Change] = asyncio.Queue()


class Store:
    """Objects by plural and (namespace, name). Plurals are unique among the kinds of a test."""

    def __init__(self, kinds: Iterable[Kind] = (), *, history: int = 100_000) -> None:
        self.kinds = {(kind.group, kind.version, kind.plural): kind for kind in (*KINDS, *kinds)}
        self.version = 1000
        self.compacted = 0
        self.rejected: set[str] = (
            set()
        )  # paths that no kind has, as spec.*.template.spec.initContainers.*.restartPolicy
        self.admission: list[Admission] = []  # each may refuse a create with a sentence
        self._objects: dict[str, dict[Key, JsonDict]] = defaultdict(dict)
        self._history: dict[str, deque[Change]] = defaultdict(lambda: deque(maxlen=history))
        self._watchers: dict[str | None, set[Watcher]] = defaultdict(set)
        self._dependents: dict[str, set[tuple[str, Key]]] = defaultdict(set)  # by the owner's uid
        self._by_uid: dict[str, tuple[str, Key]] = {}
        self.create("namespaces", {"metadata": {"name": "default"}})

    # ------------------------------------------------------------------------------------------ reading

    def kind(self, plural: str, group: str | None = None) -> Kind:
        for kind in self.kinds.values():
            if kind.plural == plural and group in (None, kind.group):
                return kind
        raise LookupError(f"the fake has no kind with the plural {plural}")

    def get(self, plural: str, namespace: str, name: str) -> JsonDict:
        """Raises Refused(404) when there is none."""
        found = self._objects[plural].get((namespace, name))
        if found is None:
            raise not_found(self.kind(plural), name)
        return found

    def find(self, plural: str, namespace: str, name: str) -> JsonDict | None:
        return self._objects[plural].get((namespace, name))

    def all(self, plural: str, namespace: str | None = None) -> list[JsonDict]:
        """In the server's order: by namespace, then by name."""
        chosen = self._objects[plural].items()
        return [obj for key, obj in sorted(chosen, key=lambda item: item[0]) if namespace in (None, key[0])]

    def owned_by(self, owner: JsonDict, plural: str | None = None) -> list[JsonDict]:
        held = sorted(self._dependents.get(owner["metadata"]["uid"], ()))
        return [self._objects[kind][key] for kind, key in held if plural in (None, kind)]

    def since(self, plural: str, version: int) -> list[Change]:
        """Raises Refused(410) when the history does not reach back so far."""
        history = self._history[plural]
        forgotten = history[0].version if len(history) == history.maxlen else 0
        if version < max(self.compacted, forgotten):
            raise Refused(410, f"too old resource version: {version} ({max(self.compacted, forgotten)})")
        return [change for change in history if change.version > version]

    def compact(self) -> None:
        """Forget the history: a watch or page that goes on from an older version is told 410."""
        self._history.clear()
        self.compacted = self.version

    @contextlib.contextmanager
    def watching(self, plural: str | None = None) -> Iterator[asyncio.Queue[Change]]:
        watcher = Watcher()
        self._watchers[plural].add(watcher)
        try:
            yield watcher.queue
        finally:
            self._watchers[plural].discard(watcher)

    # ------------------------------------------------------------------------------------------ writing

    def create(
        self, plural: str, obj: JsonDict, namespace: str = "", *, kind: Kind | None = None,
        strict: bool = False, dry_run: bool = False, manager: str = "unknown",
    ) -> JsonDict:  # fmt: skip
        """As POST does. Raises Refused(400, 403, 404, 409, 422)."""
        kind = kind or self.kind(plural)
        obj = self._decoded(kind, obj, strict)
        meta = dict(obj.get("metadata") or {})
        if kind.namespaced:
            namespace = namespace or meta.get("namespace", "default")
            if meta.get("namespace", namespace) != namespace:
                raise Refused(
                    400, "the namespace of the provided object does not match the namespace sent on the request"
                )
            meta["namespace"] = namespace
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        if not meta.get("name"):
            raise invalid(
                kind, "", [("FieldValueRequired", "metadata.name", "Required value: name or generateName is required")]
            )
        name = meta["name"]
        if kind.namespaced:
            self._check_namespace(kind, namespace, name)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp()}
        if kind.status:
            meta["generation"] = 1
        written = {"manager": manager, "operation": "Update", "apiVersion": kind.api_version}
        meta["managedFields"] = [{**written, "fieldsType": "FieldsV1", "fieldsV1": {}}]
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, **obj, "metadata": meta}
        if kind.status:
            obj.pop("status", None)
        fields.check(kind, obj)
        obj = defaulted(kind, obj)
        for admit in self.admission:
            if (sentence := admit(plural, obj)) is not None:
                details = {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
                raise Refused(403, f'{kind.qualified} "{name}" is forbidden: {sentence}', details=details)
        if (namespace, name) in self._objects[plural]:
            details = {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
            raise Refused(409, f'{kind.qualified} "{name}" already exists', reason="AlreadyExists", details=details)
        return obj if dry_run else self._put(kind, obj, None)

    def update(
        self, plural: str, namespace: str, name: str, change: Callable[[JsonDict], JsonDict], *,
        subresource: str = "", expected: str | None = None, strict: bool = False, dry_run: bool = False,
    ) -> JsonDict:  # fmt: skip
        """Replace by what `change` makes of the object. Raises Refused(404, 409, 422)."""
        before = self.get(plural, namespace, name)
        kind = self._kind_of(before, plural)
        if expected and expected != before["metadata"]["resourceVersion"]:
            raise Refused(
                409,
                f'Operation cannot be fulfilled on {kind.qualified} "{name}": the object has been modified; '
                "please apply your changes to the latest version and try again",
                details={"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural},
            )
        after = change(before)
        if subresource == "status":
            after = {**before, "status": after.get("status") or {}}
        else:
            after = self._decoded(kind, after, strict)
            fixed = ("uid", "creationTimestamp", "name", "namespace", "deletionTimestamp", "deletionGracePeriodSeconds",
                     "generation", "managedFields", "resourceVersion")  # fmt: skip
            meta = {key: value for key, value in (after.get("metadata") or {}).items() if key not in fixed}
            meta |= {key: before["metadata"][key] for key in fixed if key in before["metadata"]}
            after = {**after, "metadata": meta}
            if kind.status:
                after.pop("status", None)
                if "status" in before:
                    after["status"] = before["status"]
            fields.check(kind, after)
            check_fixed(kind, name, before, after)
            if after.get("spec") != before.get("spec") and "generation" in meta:
                after["metadata"] = {**meta, "generation": meta["generation"] + 1}
        if after == before or dry_run:
            return after
        return self._put_or_finish(kind, after, before)

    def patch(self, plural: str, namespace: str, name: str, patch: JsonDict, *, subresource: str = "") -> JsonDict:
        return self.update(plural, namespace, name, lambda before: merged(before, patch), subresource=subresource)

    def set_status(self, plural: str, namespace: str, name: str, status: JsonDict) -> JsonDict:
        """Merge into the object's status, as a controller does."""
        return self.patch(plural, namespace, name, {"status": status}, subresource="status")

    def delete(
        self, plural: str, namespace: str, name: str, *, uid: str | None = None, version: str | None = None,
        grace_s: int | None = None, policy: str | None = None,
    ) -> tuple[JsonDict, bool]:  # fmt: skip
        """As DELETE does: the object, and whether it is gone. Raises Refused(404, 409)."""
        obj = self.get(plural, namespace, name)
        kind = self._kind_of(obj, plural)
        meta = obj["metadata"]
        for what, wanted in (("UID", uid), ("ResourceVersion", version)):
            held = meta["uid" if what == "UID" else "resourceVersion"]
            if wanted is not None and wanted != held:
                raise Refused(
                    409,
                    f'Operation cannot be fulfilled on {kind.qualified_kind} "{name}": the {what} in the precondition '
                    f"({wanted}) does not match the {what} in record ({held}). The object might have been deleted and "
                    "then recreated",
                    details={"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.kind},
                )
        if plural == "namespaces":
            return self._delete_namespace(kind, obj)
        grace = 0
        if plural == "pods" and obj["spec"].get("nodeName"):
            ended = obj.get("status", {}).get("phase") in ("Succeeded", "Failed")
            asked = obj["spec"].get("terminationGracePeriodSeconds", 30) if grace_s is None else grace_s
            grace = 0 if ended else asked
        finalizers = list(meta.get("finalizers", ()))
        if policy == "Foreground" and "foregroundDeletion" not in finalizers and self.owned_by(obj):
            finalizers.append("foregroundDeletion")
        if grace == 0 and not finalizers:
            return self._remove(kind, obj, orphan=policy == "Orphan"), True
        marked = deleting(meta, grace)
        if finalizers:
            marked["finalizers"] = finalizers
        if marked != meta:
            obj = self._put(kind, {**obj, "metadata": marked}, obj)
        if "foregroundDeletion" in finalizers:
            self._collect(meta["uid"])
        return obj, False

    def finish(self, plural: str, namespace: str, name: str, uid: str) -> None:
        """What the kubelet does when a pod's processes are gone: the deletion takes effect."""
        obj = self.find(plural, namespace, name)
        if obj is not None and obj["metadata"]["uid"] == uid:
            kind = self._kind_of(obj, plural)
            if obj["metadata"].get("finalizers"):
                marked = {**obj["metadata"], "deletionGracePeriodSeconds": 0}
                self._put(kind, {**obj, "metadata": marked}, obj)
            else:
                self._remove(kind, obj)

    def record(
        self, about: JsonDict, reason: str, message: str, *, type: str = "Warning", source: str = ""
    ) -> JsonDict:
        """An Event about an object, as controllers write them."""
        meta = about["metadata"]
        now = timestamp()
        namespace = meta.get("namespace", "default")
        return self.create(
            "events",
            {
                "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
                "involvedObject": {
                    "kind": about["kind"], "apiVersion": about["apiVersion"], "namespace": meta.get("namespace", ""),
                    "name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"],
                },
                "reason": reason, "message": message, "type": type, "count": 1,
                "source": {"component": source}, "firstTimestamp": now, "lastTimestamp": now,
            },
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ inside

    def _kind_of(self, obj: JsonDict, plural: str) -> Kind:
        group, _, version = obj["apiVersion"].rpartition("/")
        return self.kinds.get((group, version, plural)) or self.kind(plural)

    def _decoded(self, kind: Kind, obj: JsonDict, strict: bool) -> JsonDict:
        if obj.get("kind", kind.kind) != kind.kind or obj.get("apiVersion", kind.api_version) != kind.api_version:
            raise Refused(
                400,
                f"the object provided is unrecognized (must be of type {kind.kind}): it says "
                f"{obj.get('apiVersion')} {obj.get('kind')}",
            )
        beyond = fields.unknown_fields(kind, obj) + fields.matching(obj, self.rejected)
        if beyond and strict:
            raise fields.strict_error(kind, beyond)
        return fields.without(obj, beyond)

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        found = self._objects["namespaces"].get(("", namespace))
        if found is None:
            raise not_found(self.kind("namespaces"), namespace)
        if found["metadata"].get("deletionTimestamp"):
            message = f"unable to create new content in namespace {namespace} because it is being terminated"
            causes = [{"reason": "NamespaceTerminating", "field": "metadata.namespace",
                       "message": f"namespace {namespace} is being terminated"}]  # fmt: skip
            details = {"name": name, "kind": kind.plural, "causes": causes}
            raise Refused(403, f'{kind.qualified} "{name}" is forbidden: {message}', details=details)

    def _key(self, obj: JsonDict) -> Key:
        return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]

    def _put(self, kind: Kind, obj: JsonDict, before: JsonDict | None) -> JsonDict:
        self.version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        key = self._key(obj)
        self._objects[kind.plural][key] = obj
        self._by_uid[obj["metadata"]["uid"]] = kind.plural, key
        for owner in obj["metadata"].get("ownerReferences", ()):
            self._dependents[owner["uid"]].add((kind.plural, key))
        self._tell(Change(self.version, "MODIFIED" if before else "ADDED", kind, obj, before))
        return obj

    def _put_or_finish(self, kind: Kind, after: JsonDict, before: JsonDict) -> JsonDict:
        meta = after["metadata"]
        freed = before["metadata"].get("finalizers") and not meta.get("finalizers")
        if freed and meta.get("deletionTimestamp") and not meta.get("deletionGracePeriodSeconds"):
            return self._remove(kind, after)
        return self._put(kind, after, before)

    def _remove(self, kind: Kind, obj: JsonDict, *, orphan: bool = False) -> JsonDict:
        key = self._key(obj)
        held = self._objects[kind.plural].pop(key)
        self._by_uid.pop(obj["metadata"]["uid"], None)
        self.version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        for owner in obj["metadata"].get("ownerReferences", ()):
            self._dependents[owner["uid"]].discard((kind.plural, key))
            self._release_owner(owner)
        self._tell(Change(self.version, "DELETED", kind, obj, held))
        if not orphan:
            self._collect(obj["metadata"]["uid"])
        self._release_namespace(key[0])
        return obj

    def _collect(self, uid: str) -> None:
        """The garbage collector: what an object owned goes after it."""
        for plural, key in sorted(self._dependents.get(uid, ())):
            with contextlib.suppress(Refused):
                self.delete(plural, *key, policy="Background")

    def _release_owner(self, reference: JsonDict) -> None:
        if self._dependents.get(reference["uid"]):
            return
        self._dependents.pop(reference["uid"], None)
        plural, key = self._by_uid.get(reference["uid"], ("", ("", "")))
        owner = self._objects[plural].get(key) if plural else None
        if owner is not None and "foregroundDeletion" in owner["metadata"].get("finalizers", ()):
            left = [name for name in owner["metadata"]["finalizers"] if name != "foregroundDeletion"]
            self.patch(plural, *key, {"metadata": {"finalizers": left or None}})

    def _delete_namespace(self, kind: Kind, obj: JsonDict) -> tuple[JsonDict, bool]:
        name = obj["metadata"]["name"]
        if not obj["metadata"].get("deletionTimestamp"):
            meta = {**obj["metadata"], "deletionTimestamp": timestamp()}
            obj = self._put(kind, {**obj, "metadata": meta, "status": {"phase": "Terminating"}}, obj)
        for plural in list(self._objects):
            for key in [key for key in self._objects[plural] if key[0] == name]:
                with contextlib.suppress(Refused):
                    self.delete(plural, *key, policy="Background")
        self._release_namespace(name)
        return obj, False

    def _release_namespace(self, name: str) -> None:
        found = self._objects["namespaces"].get(("", name))
        if not name or found is None or not found["metadata"].get("deletionTimestamp"):
            return
        if not any(key[0] == name for objects in self._objects.values() for key in objects):
            self._remove(self.kind("namespaces"), found)

    def _tell(self, change: Change) -> None:
        self._history[change.kind.plural].append(change)
        for watcher in (*self._watchers[change.kind.plural], *self._watchers[None]):
            watcher.queue.put_nowait(change)
