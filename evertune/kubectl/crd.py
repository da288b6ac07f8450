"""CustomResourceDefinitions of our kind, made from the pydantic models. `make docs` writes them below deploy/.

Structural schemas: no `$ref`, no `anyOf` over types; where a field takes what only our own rules can tell, the schema
takes everything. Katib's kind keeps an open spec, as in Katib's own definition: what is wrong with it is said in the
conditions, all at once, instead of by the API server.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Le
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from evertune.kubectl.objects import GROUP, KATIB_GROUP, KATIB_VERSION, KIND, PLURAL, VERSION
from evertune.spec.model import ExperimentSpec

JsonDict = dict[str, Any]

NOTE = "# Written by docs/generate.py from the models; change them, then run `make docs`.\n"
OPEN: JsonDict = {"x-kubernetes-preserve-unknown-fields": True}
OPEN_OBJECT: JsonDict = {"type": "object", **OPEN}
TEXT: JsonDict = {"type": "string"}
COUNT: JsonDict = {"type": "integer", "format": "int64"}
TIME: JsonDict = {"type": "string", "format": "date-time"}

COLUMNS = [
    {"name": "State", "type": "string", "jsonPath": ".status.state"},
    {"name": "Trials", "type": "string", "jsonPath": ".status.trials"},
    {"name": "Best", "type": "string", "jsonPath": ".status.best.value"},
    {"name": "Running", "type": "integer", "jsonPath": ".status.running", "priority": 1},
    {"name": "Failed", "type": "integer", "jsonPath": ".status.failed", "priority": 1},
    {"name": "Reason", "type": "string", "jsonPath": ".status.reason", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


class _Plain(yaml.SafeDumper):
    """Without anchors: the same schema may stand at many places."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def definitions() -> dict[str, str]:
    """File name -> YAML."""
    ours = definition(GROUP, VERSION, schema_of(ExperimentSpec), status_schema(), short=["exp"])
    katibs = definition(KATIB_GROUP, KATIB_VERSION, OPEN_OBJECT, OPEN_OBJECT, short=[])
    return {
        f"{one['metadata']['name']}.yaml": NOTE + yaml.dump(one, Dumper=_Plain, sort_keys=False, width=120)
        for one in (ours, katibs)
    }


def definition(group: str, version: str, spec: JsonDict, status: JsonDict, *, short: list[str]) -> JsonDict:
    names: JsonDict = {"kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower()}
    if short:
        names |= {"shortNames": short, "categories": ["evertune"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{group}"},
        "spec": {
            "group": group,
            "names": names,
            "scope": "Namespaced",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": COLUMNS,
                    "schema": {
                        "openAPIV3Schema": {
                            "description": "An Experiment as Katib's v1beta1, with evertune's extensions.",
                            "type": "object",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": TEXT,
                                "kind": TEXT,
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                        }
                    },
                }
            ],
        },
    }


def schema_of(model: type[BaseModel]) -> JsonDict:
    """The structural schema of a model, by its aliases."""
    return {
        "type": "object",
        "properties": {
            (field.alias or name): _field(field) for name, field in model.model_fields.items() if not field.exclude
        },
    }


def _field(field: FieldInfo) -> JsonDict:
    return _type(field.annotation, field.metadata)


def _type(annotation: Any, metadata: Any = ()) -> JsonDict:
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _type(inner, [*metadata, *more])
    if get_origin(annotation) in (Union, types.UnionType):
        return _union([part for part in get_args(annotation) if part is not type(None)], metadata)
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if (is_model or get_origin(annotation) is list) and any(isinstance(one, BeforeValidator) for one in metadata):
        return OPEN  # it may be written as something simpler, which the model's own validator spells out
    if get_origin(annotation) is list:
        (inner,) = get_args(annotation)
        return {"type": "array", "items": _type(inner)}
    if get_origin(annotation) is dict:
        _, inner = get_args(annotation)
        return OPEN_OBJECT if inner is Any else {"type": "object", "additionalProperties": _type(inner)}
    if is_model:
        return schema_of(annotation)
    if annotation is int:
        return {"type": "integer", **_bounds(metadata)}
    simple: Mapping[Any, JsonDict] = {str: TEXT, bool: {"type": "boolean"}, float: {"type": "number"}}
    return simple.get(annotation, OPEN)


def _union(parts: list[Any], metadata: Any) -> JsonDict:
    """One type as it is; whole number or text has a type of its own in Kubernetes; anything else stays open."""
    if len(parts) == 1:
        return _type(parts[0], metadata)
    kinds = [_type(part).get("type") for part in parts]
    return {"x-kubernetes-int-or-string": True} if sorted(map(str, kinds)) == ["integer", "string"] else OPEN


def _bounds(metadata: Any) -> JsonDict:
    flat = [one for item in metadata for one in (item.metadata if isinstance(item, FieldInfo) else [item])]
    low = next((one.ge for one in flat if isinstance(one, Ge)), None)
    high = next((one.le for one in flat if isinstance(one, Le)), None)
    if (low, high) == (-(2**31), 2**31 - 1):
        return {"format": "int32"}
    if (low, high) == (-(2**63), 2**63 - 1):
        return {"format": "int64"}
    return {key: value for key, value in (("minimum", low), ("maximum", high)) if value is not None}


def status_schema() -> JsonDict:
    """What `evertune.kubectl.status` writes."""
    pair = {"type": "object", "properties": {"name": TEXT, "value": TEXT}}
    condition = {
        **dict.fromkeys(("type", "status", "reason", "message"), TEXT),
        "lastTransitionTime": TIME,
        "observedGeneration": COUNT,
    }
    return {
        "type": "object",
        "properties": {
            **dict.fromkeys(("state", "reason", "message", "experimentUid", "workflowId", "trials"), TEXT),
            **dict.fromkeys(("running", "succeeded", "earlyStopped", "failed", "observedGeneration"), COUNT),
            "best": {
                "type": "object",
                "properties": {"trial": TEXT, "value": TEXT, "assignments": {"type": "array", "items": pair}},
            },
            "startTime": TIME,
            "completionTime": TIME,
            "appliedBudget": OPEN_OBJECT,
            "conditions": {
                "type": "array",
                "items": {"type": "object", "required": ["type", "status"], "properties": condition},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        },
    }
