"""The Experiment: parse, expand, default, validate, render. Pure functions over text and plain data, no I/O.

The CLI, the client and the `admit` activity call what is named here. Nothing here runs a trial or asks an algorithm.
"""

from __future__ import annotations

from evertune.spec.catalog import Catalog
from evertune.spec.check import Verdict, check, load_experiment
from evertune.spec.convert import (
    algorithm_of,
    backend_of,
    collector_spec,
    deadline_of,
    on_completion_of,
    search_problem,
    seed_of,
    settings_of,
    to_budget,
    to_objective,
    to_space,
    trial_deadline_of,
    working_dir_of,
)
from evertune.spec.document import Document, Position, parse_documents
from evertune.spec.model import Experiment
from evertune.spec.template import Templates, pod_labels, render_trial, trial_labels

__all__ = [
    "Catalog",
    "Document",
    "Experiment",
    "Position",
    "Templates",
    "Verdict",
    "algorithm_of",
    "backend_of",
    "check",
    "collector_spec",
    "deadline_of",
    "load_experiment",
    "on_completion_of",
    "parse_documents",
    "pod_labels",
    "render_trial",
    "search_problem",
    "seed_of",
    "settings_of",
    "to_budget",
    "to_objective",
    "to_space",
    "trial_deadline_of",
    "trial_labels",
    "working_dir_of",
]
