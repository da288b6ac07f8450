"""Every rule of an Experiment: Katib's, with its error classes and paths, and ours where Katib would hang.

Called by `spec.check` on a decoded and defaulted Experiment. Rules report into Findings and never raise; each module
covers one part of the spec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evertune.spec.convert import backend_of
from evertune.spec.model import ExperimentSpec
from evertune.spec.rules.checkpoints import check_checkpoints
from evertune.spec.rules.collector import check_collector
from evertune.spec.rules.experiment import check_experiment
from evertune.spec.rules.extensions import check_extensions
from evertune.spec.rules.objectives import check_constraints, check_objectives
from evertune.spec.rules.parameters import check_parameters
from evertune.spec.rules.search import check_algorithm, check_early_stopping
from evertune.spec.rules.space import check_space
from evertune.spec.rules.template import check_template

if TYPE_CHECKING:
    from evertune.spec.catalog import Catalog
    from evertune.spec.findings import Findings
    from evertune.spec.model import Experiment
    from evertune.spec.template import Templates


def apply_rules(
    experiment: Experiment,
    findings: Findings,
    *,
    catalog: Catalog | None,
    templates: Templates | None,
    backend: str | None,
) -> None:
    if not check_experiment(experiment, findings):
        return
    spec = experiment.spec or ExperimentSpec()
    check_objectives(spec, findings)
    check_constraints(spec, findings)
    check_extensions(experiment, findings)
    check_parameters(experiment, findings)
    check_space(spec, findings)
    check_template(experiment, findings, templates=templates, backend=backend or backend_of(experiment))
    check_collector(experiment, findings)
    check_checkpoints(experiment, findings, backend=backend)
    check_early_stopping(experiment, findings, catalog)
    check_algorithm(experiment, findings, catalog)
