"""The verdict on one document: decoded, expanded, defaulted, and every rule applied, all problems at once.

`check` serves `evertune validate` and `run`; `load_experiment` serves `admit` and the client. `unsupported_here` is
the second question, asked at admission: is this valid Experiment something that this version can run on that backend?
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from evertune.errors import Problem, SpecError
from evertune.spec import short
from evertune.spec.catalog import Catalog
from evertune.spec.defaults import set_defaults
from evertune.spec.document import Document, too_big
from evertune.spec.findings import Findings
from evertune.spec.model import Experiment
from evertune.spec.rules import apply_rules
from evertune.spec.structure import decode, describe
from evertune.spec.template import Templates


@dataclass(frozen=True, slots=True)
class Verdict:
    """`experiment` is complete and defaulted, or None when there are problems."""

    document: Document
    experiment: Experiment | None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        return not self.problems


def check(
    document: Document,
    catalog: Catalog | None = None,
    *,
    templates: Templates | None = None,
    backend: str | None = None,
) -> Verdict:
    """Judge one parsed document. Never raises for what is in it.

    Without `catalog` the algorithm's name and settings are not judged; without `templates` a ConfigMap template gets a
    warning instead of a check. `backend`, when known, adds warnings that only matter there.
    """
    if document.problems:
        return Verdict(document, None, list(document.problems))
    data: Any = document.data
    findings = Findings(document)
    if not isinstance(data, dict):
        findings.error("", "Parse", f"an Experiment is a mapping of keys to values, not {describe(data)}")
        return Verdict(document, None, findings.errors)
    if short.is_short(data):
        expansion = short.expand(document, findings)
        if expansion is None:
            return Verdict(document, None, findings.errors, findings.warnings)
        data = expansion.data
        findings.translate_with(expansion.translate)
    experiment = decode(data, findings)
    set_defaults(experiment)
    apply_rules(experiment, findings, catalog=catalog, templates=templates, backend=backend)
    errors = findings.errors
    return Verdict(document, None if errors else experiment, errors, findings.warnings)


def load_experiment(data: Any, catalog: Catalog | None = None, *, templates: Templates | None = None) -> Experiment:
    """The complete Experiment in plain data (a decoded JSON or YAML document); raises SpecError with all problems."""
    reason = too_big(data)
    if reason is not None:
        raise SpecError.of([Problem(path="", type="Parse", message=reason)])
    verdict = check(Document(source="", data=data), catalog, templates=templates)
    if verdict.experiment is None:
        raise SpecError.of(verdict.problems)
    return verdict.experiment
