"""Katib's `report_metrics`, for training code that was written against Katib's SDK: only its import changes.

    from evertune.katib import report_metrics   # was: from kubeflow.katib import report_metrics

For users' programs. The function is `evertune.report`'s, so that the one file is enough in a training image. Its points
take the way of `report`; RuntimeError is never raised.
"""

from __future__ import annotations

from evertune.report import report_metrics as report_metrics

__all__ = ["report_metrics"]
