"""The HTTP side of the fake API server: paths, verbs, lists by pages, discovery, access and token reviews.

`async with FakeKube() as kube:` serves on a free port of 127.0.0.1. `kube.store` is its state, for tests that play a
controller; `kube.fault(…)` makes it misbehave; `kube.requests` is what it was asked.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from evertune.testing.kubernetes.discovery import groups_of, has, resources_of
from evertune.testing.kubernetes.faults import Fault
from evertune.testing.kubernetes.logs import Logs, read
from evertune.testing.kubernetes.objects import FieldSelector, JsonDict, Kind, LabelSelector, Refused, merged, timestamp
from evertune.testing.kubernetes.store import Store
from evertune.testing.kubernetes.tokens import REVIEWS, Tokens
from evertune.testing.kubernetes.watching import Watch, broken_off

_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?"
    r"(?:/(?P<plural>[^/]+))?(?:/(?P<name>[^/]+))?(?:/(?P<subresource>[^/]+))?/?$"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NOWHERE = "the server could not find the requested resource"


@dataclass(frozen=True, slots=True)
class Request:
    """What the server was asked, for tests that count."""

    method: str
    path: str
    query: dict[str, str]
    watch: bool


class FakeKube:
    """A Kubernetes API server of the given version, on HTTP."""

    def __init__(
        self, kinds: Iterable[Kind] = (), *, version: tuple[int, int] = (1, 34), history: int = 100_000,
        bookmark_every_s: float = 1.0,
    ) -> None:  # fmt: skip
        self.store = Store(kinds, history=history)
        self.logs = Logs()
        self.tokens = Tokens(self.store)
        self.version = version
        self.bookmark_every_s = bookmark_every_s
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.forbidden: set[tuple[str, str]] = set()  # (verb, plural or plural/subresource)
        self.token: str | None = None  # None lets everybody in
        self.url = ""
        self._pages: dict[str, tuple[int, list[JsonDict]]] = {}
        self._streams: dict[int, web.Request] = {}  # open ones, by a number of their own
        self._runner: web.AppRunner | None = None
        self._away = False
        self._port = 0

    # ------------------------------------------------------------------------------------------ for tests

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Serve; after `stop` on the same port, with the same objects."""
        self._away = False
        if self._runner is not None:
            return
        app = web.Application(client_max_size=4 * 2**20)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Be away: every connection is reset, those that are open and those that come.

        The port stays ours. Whoever stops listening may leave a connection in the dark that was just being accepted.
        """
        self._away = True
        server = self._runner.server if self._runner is not None else None
        for connection in list(server.connections) if server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()
        self.drop_streams()

    async def close(self) -> None:
        """Serve no more."""
        await self.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def kubeconfig(self, path: Path, context: str = "fake") -> Path:
        """Write a kubeconfig with one context and this server's token at the moment."""
        user: JsonDict = {"token": self.token} if self.token else {}
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{"name": context, "cluster": {"server": self.url}}],
            "users": [{"name": context, "user": user}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        }), encoding="utf-8")  # fmt: skip
        return path

    def fault(self, **rule: Any) -> Fault:
        """Add a rule; see `Fault`."""
        fault = Fault(**rule)
        self.faults.append(fault)
        return fault

    def drop_streams(self) -> None:
        """Break every watch and followed log off."""
        for request in list(self._streams.values()):
            if request.transport is not None:
                request.transport.close()

    def compact(self) -> None:
        """Forget the history of watches and pages; see `Store.compact`."""
        self.store.compact()

    def count(self, method: str, path: str = "", *, watch: bool | None = None) -> int:
        """How many requests there were whose path contains `path`."""
        return sum(
            request.method == method and path in request.path and watch in (None, request.watch)
            for request in self.requests
        )

    @property
    def watches(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    # ------------------------------------------------------------------------------------------ requests

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._away:
            return _cut(request)
        watch = request.query.get("watch") in ("true", "1", "True")
        self.requests.append(Request(request.method, request.path, dict(request.query), watch))
        fault = next((rule.use() for rule in self.faults if rule.fits(request.method, request.path, watch)), None)
        if fault is not None:
            await asyncio.sleep(fault.hang_s)
            if fault.drop == "before":
                return _cut(request)
            if fault.status is not None:
                refused = Refused(fault.status, fault.message, reason=fault.reason)
                header = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
                return web.json_response(refused.body, status=fault.status, headers=header)
        try:
            if (
                self.token is not None
                and request.headers.get("Authorization", "").lower() != f"bearer {self.token}".lower()
            ):
                raise Refused(401, "Unauthorized")
            answer = await self._answer(request, watch, fault)
        except Refused as refused:
            answer = web.json_response(refused.body, status=refused.code)
        if fault is not None and fault.drop == "after":
            return _cut(request)
        return answer

    async def _answer(self, request: web.Request, watch: bool, fault: Fault | None) -> web.StreamResponse:
        if request.path == "/version":
            major, minor = self.version
            return web.json_response({"major": str(major), "minor": str(minor), "gitVersion": f"v{major}.{minor}.1"})
        if request.path in ("/apis", "/apis/"):
            return web.json_response(groups_of(self.store.kinds.values()))
        parts = _PATH.match(request.path)
        if parts is None:
            raise Refused(404, _NOWHERE)
        group, version = parts["group"] or "", parts["core"] or parts["version"]
        plural, name, subresource = parts["plural"], parts["name"], parts["subresource"] or ""
        if plural == "selfsubjectaccessreviews" and request.method == "POST":
            return web.json_response(self._review(await _json(request)), status=201)
        if (group, version, plural) == (REVIEWS.group, REVIEWS.version, REVIEWS.plural) and request.method == "POST":
            self._check_access("POST", REVIEWS, None, "", False, None)
            return web.json_response(self.tokens.review(await _json(request)), status=201)
        served = [one for one in self.store.kinds.values() if (one.group, one.version) == (group, version)]
        if not served:
            return web.Response(status=404, text="404 page not found\n")  # no Status: nobody has that group
        if plural is None:
            return web.json_response(resources_of(served))
        kind = self.store.kinds.get((group, version, plural))
        if kind is None or (subresource and not has(kind, subresource)):
            raise Refused(404, _NOWHERE)
        namespace = parts["namespace"] or ("" if name or not kind.namespaced else None)
        self._check_access(request.method, kind, name, subresource, watch, namespace)
        if request.method == "GET":
            return await self._read(request, kind, namespace, name, subresource, watch, fault)
        return await self._write(request, kind, namespace or "", name, subresource)

    async def _read(
        self, request: web.Request, kind: Kind, namespace: str | None, name: str | None, subresource: str, watch: bool,
        fault: Fault | None,
    ) -> web.StreamResponse:  # fmt: skip
        if watch:
            lines = Watch(self.store, kind, namespace, name, request.query).lines(self.bookmark_every_s)
            return await self._stream(request, "application/json", broken_off(lines, fault))
        if name is None:
            return web.json_response(self._page(kind, namespace, request))
        obj = self.store.get(kind.plural, namespace or "", name)
        if subresource == "log":
            output, follow = self.logs.open(obj, request.query)
            return await self._stream(request, "text/plain", read(output, follow, request.query))
        return web.json_response({**obj, "apiVersion": kind.api_version})

    async def _write(
        self, request: web.Request, kind: Kind, namespace: str, name: str | None, subresource: str
    ) -> web.StreamResponse:
        store, query = self.store, request.query
        body = await _json(request)
        strict, dry_run = query.get("fieldValidation") == "Strict", query.get("dryRun") == "All"
        if request.method == "POST" and name is None:
            manager = query.get("fieldManager", "unknown")
            made = store.create(
                kind.plural, body, namespace, kind=kind, strict=strict, dry_run=dry_run, manager=manager
            )
            return web.json_response(made, status=201)
        if request.method == "POST" and subresource == "eviction" and name is not None:
            return web.json_response(self._evict(namespace, name), status=201)
        if request.method == "POST" and subresource == "token" and name is not None:
            return web.json_response(self.tokens.request(namespace, name, body), status=201)
        if request.method == "DELETE":
            if name is None:
                return web.json_response(self._delete_all(kind, namespace, request))
            return web.json_response(self._delete(kind, namespace, name, body, request))
        if request.method not in ("PUT", "PATCH") or name is None:
            raise Refused(405, "the server does not allow this method on the requested resource")
        expected = (body.get("metadata") or {}).get("resourceVersion")
        if request.method == "PATCH":
            if request.content_type not in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
                raise Refused(415, "the fake takes merge patches only", reason="UnsupportedMediaType")
            if request.content_type.startswith("application/strategic") and not kind.builtin:
                raise Refused(
                    415,
                    "the body of the request was in an unknown format - accepted media types include: "
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                    reason="UnsupportedMediaType",
                )
        written = store.update(
            kind.plural, namespace, name,
            lambda before: body if request.method == "PUT" else merged(before, body),
            subresource=subresource, expected=expected, strict=strict, dry_run=dry_run,
        )  # fmt: skip
        return web.json_response(written)

    # ------------------------------------------------------------------------------------------ verbs

    def _page(self, kind: Kind, namespace: str | None, request: web.Request) -> JsonDict:
        query = request.query
        labels, wanted = LabelSelector(query.get("labelSelector")), FieldSelector(query.get("fieldSelector"), kind)
        if token := query.get("continue"):
            if token not in self._pages:
                raise Refused(400, "continue key is not valid: it was not made by this server")
            version, items = self._pages[token]
            if version < self.store.compacted:
                raise Refused(
                    410,
                    "The provided continue parameter is too old to display a consistent list result. You can start "
                    "a new list without the continue parameter, or use the continue token in this response to "
                    "retrieve the remainder of the results.",
                )
        else:
            version = self.store.version
            items = [
                obj for obj in self.store.all(kind.plural, namespace)
                if labels.matches(obj["metadata"].get("labels")) and wanted.matches(obj)
            ]  # fmt: skip
        limit = int(query.get("limit") or 0) or len(items)
        meta: JsonDict = {"resourceVersion": str(version)}
        if len(items) > limit:
            meta["continue"] = secrets.token_urlsafe(12)
            if not query.get("labelSelector") and not query.get("fieldSelector"):
                meta["remainingItemCount"] = len(items) - limit
            self._pages[meta["continue"]] = version, items[limit:]
        page = items[:limit]
        if kind.builtin:
            page = [{key: value for key, value in obj.items() if key not in ("kind", "apiVersion")} for obj in page]
        return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta, "items": page}

    def _delete(self, kind: Kind, namespace: str, name: str, body: JsonDict, request: web.Request) -> JsonDict:
        wanted = body.get("preconditions") or {}
        grace = body.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        obj, gone = self.store.delete(
            kind.plural, namespace, name,
            uid=wanted.get("uid"), version=wanted.get("resourceVersion"),
            grace_s=None if grace is None else int(grace),
            policy=body.get("propagationPolicy", request.query.get("propagationPolicy")),
        )  # fmt: skip
        if not gone or kind.plural == "pods":
            return obj
        details = {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural,
                   "uid": obj["metadata"]["uid"]}  # fmt: skip
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _delete_all(self, kind: Kind, namespace: str, request: web.Request) -> JsonDict:
        labels = LabelSelector(request.query.get("labelSelector"))
        wanted = FieldSelector(request.query.get("fieldSelector"), kind)
        chosen = [
            obj for obj in self.store.all(kind.plural, namespace)
            if labels.matches(obj["metadata"].get("labels")) and wanted.matches(obj)
        ]  # fmt: skip
        for obj in chosen:
            meta = obj["metadata"]
            self.store.delete(kind.plural, meta.get("namespace", ""), meta["name"], policy="Background")
        meta = {"resourceVersion": str(self.store.version)}
        return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta, "items": chosen}

    def _evict(self, namespace: str, name: str) -> JsonDict:
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                     "message": "Eviction API: evicting", "lastTransitionTime": timestamp()}  # fmt: skip
        pod = self.store.get("pods", namespace, name)
        conditions = [*pod.get("status", {}).get("conditions", ()), condition]
        self.store.set_status("pods", namespace, name, {"conditions": conditions})
        self.store.delete("pods", namespace, name)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    # ------------------------------------------------------------------------------------------ access

    def _review(self, body: JsonDict) -> JsonDict:
        asked = (body.get("spec") or {}).get("resourceAttributes") or {}
        resource = asked.get("resource", "")
        if asked.get("subresource"):
            resource += f"/{asked['subresource']}"
        allowed = (asked.get("verb", ""), resource) not in self.forbidden
        status = {"allowed": allowed, **({} if allowed else {"reason": "the fake was told so"})}
        return {**body, "kind": "SelfSubjectAccessReview", "status": status}

    def _check_access(
        self, method: str, kind: Kind, name: str | None, subresource: str, watch: bool, namespace: str | None
    ) -> None:
        verb = _VERBS.get(method) or ("watch" if watch else "get" if name else "list")
        if method == "DELETE" and name is None:
            verb = "deletecollection"
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        if (verb, resource) in self.forbidden:
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            which = f' "{name}"' if name else ""
            raise Refused(
                403,
                f'{kind.qualified}{which} is forbidden: User "fake" cannot {verb} resource "{resource}" '
                f'in API group "{kind.group}"{where}',
                details={**({"name": name} if name else {}), "kind": kind.plural},
            )

    async def _stream(self, request: web.Request, mime: str, lines: AsyncIterator[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": mime})
        response.enable_chunked_encoding()
        await response.prepare(request)
        self._streams[id(request)] = request
        try:
            async for line in lines:
                await response.write(line)
        except ConnectionError:
            _cut(request)
        finally:
            self._streams.pop(id(request), None)
        return response


def _cut(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    return web.Response()


async def _json(request: web.Request) -> JsonDict:
    text = await request.text()
    try:
        body = json.loads(text or "{}")
    except ValueError as error:
        raise Refused(400, f"error decoding the body: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body is no object")
    return body
