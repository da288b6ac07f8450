"""The verdict on one document: decoded, expanded, defaulted, and every rule applied, all problems at once.

`check` serves `evertune validate` and `run`, `load_judged` serves `admit`, `load_experiment` the client. `support`
answers the second question, asked at admission: can this version run it on that backend?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evertune.errors import Problem, SpecError
from evertune.spec import short
from evertune.spec.catalog import Catalog
from evertune.spec.defaults import promote_objective, promoted_path, set_defaults
from evertune.spec.document import Document, too_big
from evertune.spec.findings import Findings
from evertune.spec.model import Experiment
from evertune.spec.rules import apply_rules
from evertune.spec.structure import decode, describe
from evertune.spec.template import TemplateKey, Templates


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

    Without `catalog` the names and settings of algorithm and early stopping are not judged. A ConfigMap template must
    be among `templates`: as in Katib, what cannot be retrieved is refused; without `templates` a warning says that it
    was not checked. `backend`, when known, adds warnings that only matter there.
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
    data, promoted = promote_objective(data)
    if promoted:
        findings.translate_first(promoted_path)
    experiment = decode(data, findings)
    set_defaults(experiment)
    apply_rules(experiment, findings, catalog=catalog, templates=templates, backend=backend)
    errors = findings.errors
    return Verdict(document, None if errors else experiment, errors, findings.warnings)


def load_experiment(data: Any, catalog: Catalog | None = None, *, templates: Templates | None = None) -> Experiment:
    """The complete Experiment in plain data (a decoded JSON or YAML document); raises SpecError with all problems."""
    return load_judged(data, catalog, templates=templates)[0]


def load_judged(
    data: Any, catalog: Catalog | None = None, *, templates: Templates | None = None, backend: str | None = None
) -> tuple[Experiment, list[Problem]]:
    """As `load_experiment`, and with it what is allowed and to be minded."""
    reason = too_big(data)
    if reason is not None:
        raise SpecError.of([Problem(path="", type="Parse", message=reason)])
    verdict = check(Document(source="", data=data), catalog, templates=templates, backend=backend)
    if verdict.experiment is None:
        raise SpecError.of(verdict.problems)
    return verdict.experiment, verdict.warnings


def load_stored(manifest: Mapping[str, Any]) -> Experiment:
    """An experiment as it was admitted, from its row. Raises SpecError only for what is no Experiment at all.

    No rule is asked again: what an older version admitted goes on, whatever has become a mistake since.
    """
    findings = Findings()
    experiment = decode(dict(manifest), findings)
    if findings.errors:
        raise SpecError.of(findings.errors)
    set_defaults(experiment)
    return experiment


def check_all(
    documents: list[Document],
    catalog: Catalog | None = None,
    *,
    templates: Templates | None = None,
    backend: str | None = None,
) -> list[Verdict]:
    """One verdict per document of a file. ConfigMaps beside an Experiment serve it as templates, and are valid."""
    known: Templates | None = {**(templates or {}), **templates_of(documents)}
    if not known and templates is None:
        known = None
    verdicts: list[Verdict] = []
    for document in documents:
        if _is_config_map(document):
            verdicts.append(Verdict(document, None))
            continue
        verdicts.append(check(document, catalog, templates=known, backend=backend))
    return verdicts


def templates_of(documents: list[Document]) -> dict[TemplateKey, str]:
    """The trial templates in the ConfigMaps among `documents`, by (namespace, name, key)."""
    found: dict[TemplateKey, str] = {}
    for document in documents:
        if not _is_config_map(document):
            continue
        metadata = document.data.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        texts = document.data.get("data")
        for key, text in (texts if isinstance(texts, dict) else {}).items():
            if isinstance(text, str):
                found[str(metadata.get("namespace", "default")), str(metadata.get("name", "")), key] = text
    return found


def _is_config_map(document: Document) -> bool:
    data = document.data
    return isinstance(data, dict) and data.get("kind") == "ConfigMap" and data.get("apiVersion") == "v1"
