"""Metric collectors: each turns what a trial leaves behind into points. `create` picks the one that a spec asks for.

Imports only the standard library, the RE2 binding and evertune's plain values, because it also runs as a sidecar.
"""

from __future__ import annotations

from dataclasses import replace

from collectors.stdout import StdOutCollector
from evertune.errors import LaunchError
from evertune.protocols import Collector, CollectorSpec, Sources

__all__ = ["create"]


def create(spec: CollectorSpec, sources: Sources) -> Collector:
    """The collector for `spec`, reading `sources`. LaunchError for a kind or a filter that cannot be collected here."""
    if spec.kind in ("None", "Push"):
        spec = replace(spec, metrics=())  # nothing that is printed counts
    elif spec.kind != "StdOut":
        raise LaunchError(
            f"metrics of collector kind {spec.kind} cannot be collected here",
            "let the program print its metrics and use kind StdOut",
        )
    try:
        return StdOutCollector(spec, sources.log)
    except ValueError as error:
        raise LaunchError(f"spec.metricsCollectorSpec.source.filter.metricsFormat: {error}") from None
