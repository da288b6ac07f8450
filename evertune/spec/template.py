"""Trial templates: placeholders, metadata references, and the manifest of one trial.

Substitution is Katib's: plain text replacement over the JSON of an inline `trialSpec`, or over the raw text of a
ConfigMap template, then parsed. The runners call `render_trial` for each attempt, `evertune render` shows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evertune.domain.space import Value, value_text
from evertune.errors import Problem, SpecError
from evertune.spec.findings import did_you_mean, quote
from evertune.spec.inactive import MARK, without_inactive
from evertune.spec.model import ConfigMapSource, Experiment, JsonDict, TrialTemplate
from evertune.spec.parse import parse_documents

TemplateKey = tuple[str, str, str]  # namespace, ConfigMap's name, templatePath


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a template's text that could not be had, and says why."""

    message: str
    hint: str | None = None


Templates = Mapping[TemplateKey, str | Unreadable]

LONGEST_NAME = 253  # characters of a trialParameter's name
PLACEHOLDER = re.compile(rf"\$\{{trialParameters\.([^}}]{{1,{LONGEST_NAME}}})\}}")
STAND_IN = "evertune-placeholder"  # for a value, while a template is judged
METADATA = ("Name", "Namespace", "Kind", "APIVersion", "CheckpointDir", "ParentCheckpointDir")
_METADATA = re.compile(r"\$\{trialSpec\.([^}]{1,500})\}")
_METADATA_INDEX = re.compile(r"(Annotations|Labels)\[(.+)\]\Z")

EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
TRIAL_LABEL = "katib.kubeflow.org/trial"


def placeholder(name: str) -> str:
    return f"${{trialParameters.{name}}}"


def metadata_key(reference: str) -> tuple[str, str | None] | None:
    """(`Name`, None) or (`Labels`, key) for a `${trialSpec.…}` reference, None for anything else.

    As in Katib the reference is searched for, not matched whole: text around it is ignored.
    """
    found = _METADATA.search(reference)
    if found is None:
        return None
    if found[1] in METADATA:
        return found[1], None
    indexed = _METADATA_INDEX.match(found[1])
    return (indexed[1], indexed[2]) if indexed else None


def template_text(template: TrialTemplate, templates: Templates | None = None) -> str | None:
    """The text that placeholders are replaced in; None when the ConfigMap is not at hand."""
    if template.config_map is not None:
        text = (templates or {}).get(template_key(template.config_map))
        return text if isinstance(text, str) else None
    return json.dumps(template.trial_spec, ensure_ascii=False)


def template_key(source: ConfigMapSource) -> TemplateKey:
    return source.config_map_namespace or "", source.config_map_name or "", source.template_path or ""


def unfilled(template: TrialTemplate, templates: Templates | None = None) -> JsonDict | None:
    """The trial's object with a stand-in for each value; None when the template cannot be read."""
    text = template_text(template, templates)
    try:
        return None if text is None else parse_template(PLACEHOLDER.sub(STAND_IN, text), inline=not template.config_map)
    except (ValueError, RecursionError):
        return None


def stored_templates(context: Mapping[str, Any]) -> dict[TemplateKey, str]:
    """The templates that were kept with an experiment when it was admitted (`contracts.TemplateText`)."""
    kept = context.get("templates") or ()
    return {(entry["namespace"], entry["name"], entry["key"]): entry["text"] for entry in kept}


def parse_template(text: str, *, inline: bool) -> JsonDict:
    """The object in a template's text; raises ValueError with the reason."""
    if inline:
        data = json.loads(text)
    else:
        document = parse_documents(text, "template")[0]
        if document.problems:
            raise ValueError(document.problems[0].message)
        data = document.data
    if not isinstance(data, dict):
        raise ValueError("it is not a mapping")
    if not isinstance(data.get("kind"), str) or not data["kind"]:
        raise ValueError("it has no kind")
    return data


def render_trial(
    experiment: Experiment,
    *,
    trial_name: str,
    namespace: str | None = None,
    parameters: Mapping[str, Value],
    templates: Templates | None = None,
    checkpoint_dir: str = "",
    parent_checkpoint_dir: str = "",
) -> JsonDict:
    """The trial's object with all values filled in, named and namespaced; raises SpecError.

    The directories are those of its checkpoint and of the one that it goes on from; there is none without a parent.
    Every assignment must be consumed and every reference assigned, as Katib checks at trial creation. The placeholder
    of a conditional parameter that is not there disappears with what holds it (see `inactive`).
    """
    template = (experiment.spec and experiment.spec.trial_template) or TrialTemplate()
    text = template_text(template, templates)
    if text is None:
        message = "the ConfigMap template is not at hand"
        raise _failure("spec.trialTemplate.configMap", message, "give its file: --configmap FILE")
    inline = template.config_map is None
    space = namespace or experiment.namespace
    known = {
        "Name": trial_name,
        "Namespace": space,
        "CheckpointDir": checkpoint_dir,
        "ParentCheckpointDir": parent_checkpoint_dir,
    }
    original = _original(template, text, inline=inline)
    consumed: set[str] = set()
    absent = False
    for index, parameter in enumerate(template.trial_parameters or ()):
        name, reference = parameter.name or "", parameter.reference or ""
        path = f"spec.trialTemplate.trialParameters[{index}].reference"
        key = metadata_key(reference)
        if key is not None:
            value: str = _metadata(original, key, path, known)
        elif reference in parameters:
            value = value_text(parameters[reference])
            consumed.add(reference)
        elif _inactive(experiment, reference, parameters):
            value, absent = MARK, True
        else:
            hint = f"did you mean {quote(close)}?" if (close := did_you_mean(reference, parameters)) else None
            raise _failure(path, f"no value for {quote(reference)}", hint)
        text = text.replace(placeholder(name), value)
    if unused := sorted(set(parameters) - consumed):
        raise _failure("spec.trialTemplate.trialParameters", f"nothing refers to {', '.join(unused)}")
    try:
        manifest = parse_template(text, inline=inline)
    except (ValueError, RecursionError) as error:
        message = f"the template is not readable after substitution: {error}"
        raise _failure("spec.trialTemplate", message, 'a value may hold no " or \\') from None
    if absent:
        manifest = without_inactive(manifest)
    metadata = manifest.get("metadata")
    manifest["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "name": trial_name, "namespace": space}
    return manifest


def _inactive(experiment: Experiment, name: str, parameters: Mapping[str, Value]) -> bool:
    """Whether a condition of the parameter does not hold; one that it names may be inactive itself."""
    for parameter in (experiment.spec and experiment.spec.parameters) or ():
        if parameter.name == name:
            conditions = (parameter.when or {}).items()
            return any(
                parent not in parameters or value_text(parameters[parent]) not in values
                for parent, values in conditions
            )
    return False


def _original(template: TrialTemplate, text: str, *, inline: bool) -> JsonDict:
    """The template before substitution: metadata references read from it. Empty when it only parses afterwards."""
    if inline:
        return template.trial_spec or {}
    try:
        return parse_template(PLACEHOLDER.sub("0", text), inline=False)
    except ValueError:
        return {}


def _metadata(original: JsonDict, key: tuple[str, str | None], path: str, known: Mapping[str, str]) -> str:
    field, index = key
    if index is None:
        of_template = {"Kind": original.get("kind"), "APIVersion": original.get("apiVersion")}
        found: Any = known[field] if field in known else of_template[field]
        if isinstance(found, str):
            return found
        raise _failure(path, f"the template has no {'kind' if field == 'Kind' else 'apiVersion'}")
    table = (original.get("metadata") or {}).get(field.lower()) or {}
    if index not in table:
        raise _failure(path, f"the template's metadata.{field.lower()} has no {quote(index)}")
    return str(table[index])


def _failure(path: str, message: str, hint: str | None = None) -> SpecError:
    return SpecError.of([Problem(path=path, type="Invalid", message=message, hint=hint)])


def trial_labels(experiment: Experiment, assigned: Mapping[str, str] | None = None) -> dict[str, str]:
    """Labels of a trial: the experiment's, its name, and what the algorithm gave it."""
    own = (experiment.metadata and experiment.metadata.labels) or {}
    return {**own, EXPERIMENT_LABEL: experiment.name, **(assigned or {})}


def pod_labels(experiment: Experiment, trial_name: str, assigned: Mapping[str, str] | None = None) -> dict[str, str]:
    """Labels of every pod of a trial."""
    return {**trial_labels(experiment, assigned), TRIAL_LABEL: trial_name}
