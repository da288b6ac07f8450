"""Writes the typed shape of a batch/v1 Job from the Kubernetes client's models: `evertune/spec/rules/job_schema.json`.

Run `python tests/unit/spec/job_schema.py > evertune/spec/rules/job_schema.json` after raising the client's version.
"""

from __future__ import annotations

import json
import re

from kubernetes.client import models

_QUANTITIES = {"limits", "requests", "capacity", "allocated_resources", "overhead", "size_limit", "divisor"}


def schema() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    waiting = ["V1Job"]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        model = getattr(models, name)
        fields = found[name] = {}
        for attribute, kind in model.openapi_types.items():
            key = model.attribute_map[attribute]
            spelled = kind.replace("str", "quantity") if attribute in _QUANTITIES else kind
            spelled = spelled.replace("datetime", "str").replace("Dict[quantity, ", "Dict[str, ")
            fields[key] = spelled
            waiting.extend(part for part in re.findall(r"\w+", kind) if hasattr(models, part))
    return dict(sorted(found.items()))


if __name__ == "__main__":
    print(json.dumps(schema(), indent=0, sort_keys=True))
