"""The Experiment: parse, expand, default, validate, render. Pure functions over text and plain data, no I/O.

The CLI, the client and the `admit` activity call what is named here. Nothing here runs a trial or asks an algorithm.
"""

from __future__ import annotations

from evertune.spec.build import quick_experiment
from evertune.spec.catalog import Catalog
from evertune.spec.check import Verdict, check, check_all, load_experiment, load_judged, load_stored, templates_of
from evertune.spec.convert import (
    algorithm_of,
    backend_of,
    cluster_of,
    collector_spec,
    custom_collector,
    deadline_of,
    memory_growth_of,
    nas_of,
    on_completion_of,
    replicates_of,
    search_problem,
    seed_of,
    settings_of,
    stopper_of,
    stopper_settings_of,
    to_budget,
    to_objective,
    to_space,
    trial_deadline_of,
    warm_start_of,
    working_dir_of,
)
from evertune.spec.dimension import parse_dimension
from evertune.spec.document import Document, Position
from evertune.spec.memory import memory_of
from evertune.spec.model import Experiment
from evertune.spec.parse import parse_documents
from evertune.spec.phrases import PhraseError, assignment_in, constraint_in, objective_in
from evertune.spec.quantity import parse_quantity
from evertune.spec.scaffold import commented_yaml
from evertune.spec.support import unsupported_here
from evertune.spec.template import (
    TemplateKey,
    Templates,
    Unreadable,
    pod_labels,
    render_trial,
    stored_templates,
    template_key,
    trial_labels,
)

__all__ = [
    "Catalog",
    "Document",
    "Experiment",
    "PhraseError",
    "Position",
    "TemplateKey",
    "Templates",
    "Unreadable",
    "Verdict",
    "algorithm_of",
    "assignment_in",
    "backend_of",
    "check",
    "check_all",
    "cluster_of",
    "collector_spec",
    "commented_yaml",
    "constraint_in",
    "custom_collector",
    "deadline_of",
    "load_experiment",
    "load_judged",
    "load_stored",
    "memory_growth_of",
    "memory_of",
    "nas_of",
    "objective_in",
    "on_completion_of",
    "parse_dimension",
    "parse_documents",
    "parse_quantity",
    "pod_labels",
    "quick_experiment",
    "render_trial",
    "replicates_of",
    "search_problem",
    "seed_of",
    "settings_of",
    "stopper_of",
    "stopper_settings_of",
    "stored_templates",
    "template_key",
    "templates_of",
    "to_budget",
    "to_objective",
    "to_space",
    "trial_deadline_of",
    "trial_labels",
    "unsupported_here",
    "warm_start_of",
    "working_dir_of",
]
