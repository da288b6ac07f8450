"""Rules about `spec.failurePolicy`: what follows when an attempt ends for want of memory."""

from __future__ import annotations

from evertune.spec.findings import Findings, quote
from evertune.spec.model import ExperimentSpec, OutOfMemoryPolicy
from evertune.spec.quantity import parse_factor, parse_quantity

PATH = "spec.failurePolicy"
MOST_FACTOR = 10.0
_EXAMPLE = "for example onOOM: {memory: x1.5, max: 64Gi}"


def check_failure_policy(spec: ExperimentSpec, findings: Findings) -> None:
    policy = spec.failure_policy
    if policy is None:
        return
    if policy.on_oom is None:
        findings.error(PATH, "Required", "the policy says nothing", _EXAMPLE)
    else:
        _check_memory(policy.on_oom, findings)


def _check_memory(policy: OutOfMemoryPolicy, findings: Findings) -> None:
    path = f"{PATH}.onOOM"
    if policy.memory is None:
        findings.error(f"{path}.memory", "Required", "memory is missing: by how much it grows", _EXAMPLE, at=path)
    else:
        try:
            factor = parse_factor(policy.memory)
        except ValueError:
            number = isinstance(policy.memory, int | float)
            hint = f"write x{policy.memory:g}" if number else _EXAMPLE
            findings.error(f"{path}.memory", "Invalid", f"{quote(policy.memory)} is not a factor", hint)
        else:
            if not 1 < factor <= MOST_FACTOR:
                message = f"the factor {factor:g} is not above 1 and at most {MOST_FACTOR:g}"
                findings.error(f"{path}.memory", "Invalid", message, _EXAMPLE)
    if policy.max is None:
        return
    try:
        most = parse_quantity(policy.max)
    except ValueError:
        findings.error(f"{path}.max", "Invalid", f"{quote(policy.max)} is not an amount of memory", "for example 64Gi")
    else:
        if most < 1:
            findings.error(f"{path}.max", "Invalid", f"{quote(policy.max)} is no memory at all", "for example 64Gi")
