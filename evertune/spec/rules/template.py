"""Rules about the trial template: its source, its placeholders, and the object that comes out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from evertune.spec.document import child_path
from evertune.spec.findings import MAX_PROBLEMS, Findings, did_you_mean, quote, suggestion
from evertune.spec.kinds import KINDS, TRAINING_KINDS, container_names, pod_templates
from evertune.spec.model import ConfigMapSource, Experiment, ExperimentSpec, JsonDict, TrialParameter, TrialTemplate
from evertune.spec.rules.cluster import check_cluster
from evertune.spec.rules.conditions import check_conditions
from evertune.spec.rules.job import job_misfits
from evertune.spec.structure import describe
from evertune.spec.template import (
    LONGEST_NAME,
    PLACEHOLDER,
    STAND_IN,
    Templates,
    Unreadable,
    metadata_key,
    parse_template,
    placeholder,
    template_key,
    template_text,
)

PATH = "spec.trialTemplate"
ISTIO = "sidecar.istio.io/inject"


def check_template(
    experiment: Experiment, findings: Findings, *, templates: Templates | None, backend: str | None
) -> None:
    spec = experiment.spec or ExperimentSpec()
    template = spec.trial_template
    if template is None:
        findings.error(PATH, "Required", "trialTemplate is missing", "it says what one trial runs")
        return
    if not template.primary_container_name:
        message = "the name of the container that trains is missing"
        findings.error(f"{PATH}.primaryContainerName", "Required", message, _container_hint(template))
    if findings.broken(f"{PATH}.trialSpec") or findings.broken(f"{PATH}.configMap"):
        return  # what else is wrong follows from that
    if not template.success_condition or not template.failure_condition:
        message = "successCondition and failureCondition must be given"
        silent = [kind.kind for kind in KINDS.values() if kind.silent]
        hint = f"only an inline {', '.join(silent)} has them by default"
        findings.error(PATH, "Required", message, hint)
    if template.trial_parameters is None:
        hint = "write trialParameters: [{name: lr, reference: lr}], or [] for none"
        findings.error(f"{PATH}.trialParameters", "Required", "trialParameters is missing", hint)
        return
    text = _source_text(template, findings, templates, backend=backend)
    sound = _check_trial_parameters(spec, template, text, findings)
    manifest = None
    if text is not None:
        manifest = _check_object(template, text, findings, check_leftover=sound, backend=backend)
    check_conditions(template, manifest, findings)


def _container_hint(template: TrialTemplate) -> str | None:
    names = container_names(template.trial_spec or {})
    return f"primaryContainerName: {names[0]}" if names else None


def _source_text(
    template: TrialTemplate, findings: Findings, templates: Templates | None, *, backend: str | None
) -> str | None:
    """The template's text, or None when there is none to look at."""
    source = template.config_map
    if template.trial_spec is None and source is None:
        message = "neither trialSpec nor configMap is given"
        findings.error(f"{PATH}.TrialSource", "Required", message, at=PATH)
        return None
    if template.trial_spec is not None and source is not None:
        findings.error(PATH, "Required", "trialSpec and configMap exclude each other", at=f"{PATH}.configMap")
        return None
    if source is not None:
        if not (source.config_map_name and source.config_map_namespace and source.template_path):
            message = "configMapName, configMapNamespace and templatePath must be given"
            findings.error(f"{PATH}.configMap", "Required", message)
            return None
        text = template_text(template, templates)
        if text is None:
            _template_missing(source, templates, findings, backend=backend)
        return text
    return template_text(template)


_HAND_IT_IN = "put the ConfigMap as another document into the same file, or give its own: --configmap FILE"


def _template_missing(
    source: ConfigMapSource, templates: Templates | None, findings: Findings, *, backend: str | None
) -> None:
    place = f"{source.config_map_namespace}/{source.config_map_name}"
    known = (templates or {}).get(template_key(source))
    keys = [key for namespace, name, key in templates or () if place == f"{namespace}/{name}"]
    if isinstance(known, Unreadable):
        message, hint = known.message, known.hint
    elif keys:
        message = f"the ConfigMap {place} has no key {quote(source.template_path)}"
        hint = suggestion(source.template_path or "", keys, "keys")
    elif backend == "kubernetes":
        message = (
            f"the template in the ConfigMap {place} is judged when it has been read from the cluster, at the start"
        )
        findings.warn(f"{PATH}.configMap", message, f"to have it judged now: {_HAND_IT_IN}")
        return
    elif templates is None:
        message = f"not checked: the template is in the ConfigMap {place}, which is not at hand"
        findings.warn(f"{PATH}.configMap", message, f"to have it judged: {_HAND_IT_IN}")
        return
    else:
        message = f"the template cannot be read: there is no ConfigMap {place} beside the experiment"
        hint = f"{_HAND_IT_IN}; or write the template under trialSpec"
    findings.error(PATH, "Invalid", message, hint, at=f"{PATH}.configMap")


def _check_trial_parameters(
    spec: ExperimentSpec, template: TrialTemplate, text: str | None, findings: Findings
) -> bool:
    """Katib's T9 to T13 and our rule that each search parameter is used. False: a placeholder was not found."""
    names = dict.fromkeys(parameter.name for parameter in spec.parameters or () if parameter.name)
    present = None if text is None else dict.fromkeys(PLACEHOLDER.findall(text))
    seen_names: set[str] = set()
    seen_references: set[str] = set()
    excused: set[str] = set()  # parameters that a broken entry probably stands for: not reported as unused too
    broken = 0
    sound = True
    for index, item in enumerate(template.trial_parameters or ()):
        here = f"{PATH}.trialParameters[{index}]"
        if findings.full:
            return sound
        if findings.broken(here):
            broken += 1
            continue
        name, reference = item.name or "", item.reference or ""
        skip = _entry_problem(item, here, seen_names, seen_references, findings)
        if skip:
            broken += not reference or reference in seen_references
            seen_references.add(reference)
            continue
        seen_names.add(name)
        seen_references.add(reference)
        if names and reference not in names and metadata_key(reference) is None:
            broken += 1
            excused |= _unknown_reference(reference, names, here, findings)
        if present is not None and name not in present:
            sound = False
            left = [found for found in present if found not in seen_names]
            hint = f"write {placeholder(name)} where the value goes"
            if close := did_you_mean(name, left):
                hint = f"the template has {placeholder(close)}; {hint}"
            message = f"{placeholder(name)} does not occur in the template"
            findings.error(f"{here}.name", "Invalid", message, hint)
    unused = [name for name in names if name not in seen_references and name not in excused]
    if len(unused) > broken - len(excused):
        _report_unused(spec, set(unused), findings)
    return sound


def _entry_problem(item: TrialParameter, here: str, names: set[str], references: set[str], findings: Findings) -> bool:
    name, reference = item.name or "", item.reference or ""
    if not name or not reference:
        findings.error(here, "Invalid", f"{'reference' if name else 'name'} is missing")
    elif "{" in name or "}" in name:
        findings.error(here, "Invalid", f"the name {quote(name)} may not hold braces", at=f"{here}.name")
    elif len(name) > LONGEST_NAME:
        message = f"the name {quote(name)} has {len(name)} characters, at most {LONGEST_NAME} fit"
        findings.error(f"{here}.name", "Invalid", message)
    elif name in names:
        findings.error(f"{here}.name", "Invalid", f"{quote(name)} is the name of another trialParameter already")
    elif reference in references:
        message = f"{quote(reference)} is referred to already"
        hint = "one trialParameter may be written several times in the template"
        findings.error(f"{here}.reference", "Invalid", message, hint)
    else:
        return False
    return True


def _unknown_reference(reference: str, names: Iterable[str], here: str, findings: Findings) -> set[str]:
    path = f"{here}.reference"
    if reference.startswith("${"):
        hint = "known: ${trialSpec.Name} .Namespace .Kind .APIVersion .Annotations[key] .Labels[key]"
        hint += " .CheckpointDir .ParentCheckpointDir"
        findings.error(path, "Invalid", f"{quote(reference)} is not known about a trial", hint)
        return set()
    hint = suggestion(reference, names, "parameters")
    findings.error(path, "Invalid", f"no parameter {quote(reference)}", hint)
    close = did_you_mean(reference, names)
    return {close} if close else set()


def _report_unused(spec: ExperimentSpec, unused: set[str], findings: Findings) -> None:
    for index, parameter in enumerate(spec.parameters or ()):
        if parameter.name in unused:
            message = f"no trialParameter refers to {quote(parameter.name)}: its values would never reach a trial"
            hint = f"add {{name: {parameter.name}, reference: {parameter.name}}} to trialParameters"
            findings.error(f"spec.parameters[{index}].name", "Invalid", message, hint)


def _check_object(
    template: TrialTemplate, text: str, findings: Findings, *, check_leftover: bool, backend: str | None
) -> JsonDict | None:
    """The template's object, placeholders filled with a stand-in; None when there is none."""
    inline = template.config_map is None
    root = f"{PATH}.trialSpec" if inline else f"{PATH}.configMap"
    places = dict(_places(template.trial_spec, root)) if inline else {}
    known = {item.name for item in template.trial_parameters or () if item.name and item.reference}
    rejected = _rejected_names(template)
    for name in dict.fromkeys(PLACEHOLDER.findall(text)):
        if name in known and name not in rejected:
            continue
        if check_leftover:
            at = places.get(name, root)
            close = did_you_mean(name, known - rejected)
            hint = f"did you mean {placeholder(close)}?" if close else f"add {quote(name)} to trialParameters"
            findings.error(PATH, "Invalid", f"no trialParameter is called {quote(name)}", hint, at=at)
    try:
        manifest = parse_template(PLACEHOLDER.sub(STAND_IN, text), inline=inline)
    except (ValueError, RecursionError) as error:
        findings.error(PATH, "Invalid", f"the template is not an object: {error}", at=root)
        return None
    metadata = manifest.get("metadata")
    if isinstance(metadata, dict) and (given := [key for key in ("name", "namespace") if metadata.get(key)]):
        message = f"metadata.{' and metadata.'.join(given)} must be absent: each trial gets its own"
        findings.error(PATH, "Invalid", message, "remove it", at=f"{root}.metadata.{given[0]}")
    _check_metadata_references(template, metadata, findings)
    version = manifest.get("apiVersion")
    if not version:
        findings.error(PATH, "Required", "the template has no apiVersion", at=f"{root}.kind")
    elif not isinstance(version, str):
        findings.error(PATH, "Invalid", f"apiVersion must be text, not {describe(version)}", at=f"{root}.apiVersion")
    if manifest.get("apiVersion") == "batch/v1" and manifest["kind"] == "Job":
        for misfit in itertools.islice(job_misfits(manifest, root, findings.written), MAX_PROBLEMS):
            shown = misfit.path.removeprefix(f"{root}.")
            findings.error(PATH, "Invalid", f"{shown} {misfit.message}" if misfit.message.startswith("must")
                           else f"{misfit.message}: {shown}", misfit.hint, at=misfit.path)  # fmt: skip
    _check_container(template, manifest, findings)
    _check_pods(manifest, root, findings, backend=backend)
    if backend == "kubernetes":
        check_cluster(template, manifest, root, findings)
    return manifest


def _check_metadata_references(template: TrialTemplate, metadata: Any, findings: Findings) -> None:
    """A label or annotation that is read must be there: Katib finds out at each trial, and makes none for ever."""
    for index, item in enumerate(template.trial_parameters or ()):
        field, name = metadata_key(item.reference or "") or ("", None)
        if name is None:
            continue
        table = metadata.get(field.lower()) if isinstance(metadata, dict) else None
        known = list(table) if isinstance(table, dict) else []
        if name not in known:
            message = f"the template's metadata.{field.lower()} has no {quote(name)}"
            hint = (
                suggestion(name, known, "it has")
                if known
                else f"write it under the template's metadata.{field.lower()}"
            )
            findings.error(f"{PATH}.trialParameters[{index}].reference", "Invalid", message, hint)


def _rejected_names(template: TrialTemplate) -> set[str]:
    """Names whose entry was refused, so that their placeholders stay in the text, as in Katib."""
    names: set[str] = set()
    references: set[str] = set()
    rejected: set[str] = set()
    for item in template.trial_parameters or ():
        name, reference = item.name or "", item.reference or ""
        if not name or not reference or "{" in name or "}" in name or name in names or reference in references:
            if name not in names:
                rejected.add(name)
            continue
        names.add(name)
        references.add(reference)
    return rejected


def _places(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """(placeholder's name, path of the text that holds it); `dict` of it keeps one place per name."""
    if isinstance(value, str):
        for name in PLACEHOLDER.findall(value):
            yield name, path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, child_path(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, child_path(path, index))


# ------------------------------------------------------------------------------------------ pods and containers


def _check_container(template: TrialTemplate, manifest: JsonDict, findings: Findings) -> None:
    wanted = template.primary_container_name
    names = container_names(manifest)
    if not wanted or any(STAND_IN in name for name in names):
        return
    path = f"{PATH}.primaryContainerName"
    if names and wanted not in names:
        message = f"the template has no container {quote(wanted)}"
        findings.error(path, "Invalid", message, suggestion(wanted, names, "containers"))
    elif not names and manifest["kind"] in ("Job", *TRAINING_KINDS):
        findings.error(path, "Invalid", f"the template has no container {quote(wanted)}: it has none at all")


def _check_pods(manifest: JsonDict, root: str, findings: Findings, *, backend: str | None) -> None:
    pods = list(pod_templates(manifest))
    for where, _, pod in pods:
        metadata = pod.get("metadata")
        tables = [(key, metadata.get(key)) for key in ("annotations", "labels")] if isinstance(metadata, dict) else []
        given = [(key, table[ISTIO]) for key, table in tables if isinstance(table, dict) and ISTIO in table]
        path = f"{root}.{where}.metadata"
        if any(str(value).lower() == "true" for _, value in given) and backend != "local":
            key = next(key for key, value in given if str(value).lower() == "true")
            message = f'{ISTIO}: "true" lets Istio\'s proxy outlive the training: the trial would never end'
            findings.warn(f"{path}.{key}[{ISTIO}]", message, f'write {ISTIO}: "false"')
        elif not given and backend == "kubernetes":
            message = f"{ISTIO} is not set: where Istio injects its proxy the pod never ends, and so does the trial"
            hint = f'write annotations: {{{ISTIO}: "false"}}; evertune adds it to these pods itself'
            findings.warn(f"{path}.annotations[{ISTIO}]", message, hint, type_="Required")
    if not pods and backend == "kubernetes" and ISTIO not in json.dumps(manifest):
        message = f"{ISTIO} is not set: where Istio injects its proxy the pods never end, and so does the trial"
        hint = f'annotate the pods of this {manifest["kind"]} with {ISTIO}: "false"'
        findings.warn(root, message, hint, type_="Required")
    if manifest["kind"] == "Job" and manifest.get("apiVersion") == "batch/v1":
        for where, _, pod in pods:
            pod_spec = pod.get("spec")
            policy = pod_spec.get("restartPolicy") if isinstance(pod_spec, dict) else None
            if policy not in ("Never", "OnFailure") and STAND_IN not in str(policy):
                message = "a Job needs restartPolicy Never or OnFailure: Kubernetes refuses it otherwise"
                findings.warn(f"{root}.{where}.spec.restartPolicy", message, "write restartPolicy: Never")
