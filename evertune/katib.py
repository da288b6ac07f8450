"""Katib's `report_metrics`, for training code that was written against Katib's SDK: only its import changes.

    from evertune.katib import report_metrics   # was: from kubeflow.katib import report_metrics

For users' programs. The points take the way of `evertune.report`; there is no database manager to speak to, so its
address and the time limit are accepted and not used, and RuntimeError is never raised.
"""

from __future__ import annotations

import os

from evertune.report import report

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, without importing typing
if TYPE_CHECKING:
    from typing import Any

__all__ = ["report_metrics"]


def report_metrics(
    metrics: dict[str, Any],
    db_manager_address: str = "katib-db-manager.kubeflow:6789",
    timeout: int = 120,
) -> None:
    """Report each of `metrics` once. Raises ValueError outside a trial, and for a value that `float` refuses."""
    if os.environ.get("KATIB_TRIAL_NAME") is None:
        raise ValueError("KATIB_TRIAL_NAME is not set, so this program is not a trial: there is nobody to report to")
    numbers = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except Exception as problem:
            raise ValueError(f"metric {name!r} is {value!r:.200}, which is not a number: {problem}") from problem
        numbers[name] = value if isinstance(value, str) else number  # text stays as it was written
    report(numbers)
