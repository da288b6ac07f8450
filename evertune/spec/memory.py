"""How much memory a trial asks for, by its manifest: where `failurePolicy.onOOM` starts from."""

from __future__ import annotations

from evertune.spec.kinds import containers_of, pod_templates
from evertune.spec.model import JsonDict
from evertune.spec.quantity import parse_quantity


def memory_of(manifest: JsonDict, primary_container: str) -> float | None:
    """Bytes that the containers of that name are given, of several the least; None where nothing is said.

    Where no container has the name, all count. A limit is what ends a container, a request counts without one.
    """
    named: list[float] = []
    others: list[float] = []
    for _, _, template in pod_templates(manifest):
        for _, container in containers_of(template):
            amount = _memory(container)
            if amount is not None:
                (named if container.get("name") == primary_container else others).append(amount)
    return min(named or others, default=None)


def _memory(container: JsonDict) -> float | None:
    resources = container.get("resources")
    for key in ("limits", "requests"):
        table = resources.get(key) if isinstance(resources, dict) else None
        value = table.get("memory") if isinstance(table, dict) else None
        if isinstance(value, str | int | float):
            try:
                return parse_quantity(value)
            except ValueError:
                return None
    return None
