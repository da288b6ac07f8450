"""The shipped shape of a Job is what the Kubernetes client's models say."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.spec.job_schema import schema

SHIPPED = Path(__file__).parents[3] / "evertune" / "spec" / "rules" / "job_schema.json"


def test_the_shipped_schema_knows_all_that_the_client_knows() -> None:
    shipped = json.loads(SHIPPED.read_text("utf-8"))
    known = schema()
    assert {"V1Job", "V1PodSpec", "V1Container"} <= set(known)
    for name, fields in known.items():
        missing = {key: kind for key, kind in fields.items() if shipped.get(name, {}).get(key) != kind}
        assert not missing, f"{name}: run tests/unit/spec/job_schema.py"
