"""What each algorithm is good for, as plain data: for `evertune algorithms` and the docs.

Made of what the classes say of themselves (`about`, `advice`, `supports`, their settings); which types of parameters
one takes is found by asking its own `check`. Imports no numeric library, and refuses nothing: a third party's class
that says little of itself gets a short entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from algorithms import registry
from algorithms.stoppers import registry as stoppers
from evertune.domain.metrics import ObjectiveType
from evertune.domain.setting import Rule
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace
from evertune.protocols import Feature


@dataclass(frozen=True, slots=True)
class Entry:
    """One algorithm. `types`: of parameters; empty where it searches architectures instead."""

    name: str
    about: str
    advice: str
    types: tuple[str, ...]
    supports: tuple[str, ...]
    settings: Mapping[str, Rule] = field(default_factory=dict)
    built_in: bool = True

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "about": self.about,
            "advice": self.advice,
            "types": list(self.types),
            "supports": list(self.supports),
            "settings": [setting(name, rule) for name, rule in self.settings.items()],
            "builtIn": self.built_in,
        }


def setting(name: str, rule: Rule) -> dict[str, Any]:
    return {
        "name": name,
        "mustBe": rule.must_be,
        "meaning": rule.meaning,
        "default": rule.default,
        "required": rule.default is None,
    }


def entries() -> list[Entry]:
    """Every algorithm that runs here, ours first, each family beside its kin."""
    return [entry(name) for name in registry.names()]


def entry(name: str) -> Entry:
    """Raises AlgorithmError for a name that is not an algorithm."""
    kind = registry.get(name)
    supports = registry.supports(name)
    architectures = Feature.NAS_CONFIG in getattr(kind, "handles", frozenset())
    return Entry(
        name=name,
        about=getattr(kind, "about", "") or (kind.__doc__ or "").strip().partition("\n")[0],
        advice=getattr(kind, "advice", ""),
        types=() if architectures else tuple(_types(name)),
        supports=tuple(str(feature) for feature in Feature if feature in supports),
        settings=registry.settings(name),
        built_in=registry.built_in(name),
    )


def stopper(name: str) -> Entry:
    """A rule of early stopping, in the same form."""
    kind = stoppers.get(name)
    return Entry(
        name=name,
        about=getattr(kind, "about", ""),
        advice="Under earlyStopping, beside any algorithm.",
        types=(),
        supports=(),
        settings=stoppers.settings_of(name),
        built_in=name in stoppers.BUILT_IN,
    )


def _types(name: str) -> Iterator[str]:
    """The kinds of parameters that its check has nothing against, next to two that no algorithm minds."""
    kinds = {
        "double": _numeric(ParameterType.DOUBLE, None),
        "double with a step": _numeric(ParameterType.DOUBLE, 0.25),
        "int": _numeric(ParameterType.INT, None),
        "discrete": Parameter(name="x", type=ParameterType.DISCRETE, values=("1", "2")),
        "categorical": Parameter(name="x", type=ParameterType.CATEGORICAL, values=("a", "b")),
    }
    fits = {
        label: not any(
            problem.path.startswith("spec.parameters[2]") for problem in registry.check(name, _problem(parameter))
        )
        for label, parameter in kinds.items()
    }
    for label, fit in fits.items():
        if fit and not (label == "double with a step" and fits["double"]):
            yield label


def _numeric(kind: ParameterType, step: float | None) -> Parameter:
    return Parameter(name="x", type=kind, low=0.0, high=4.0, step=step)


def _problem(parameter: Parameter) -> SearchProblem:
    beside = (Parameter(name=name, type=ParameterType.INT, low=1.0, high=4.0) for name in ("a", "b"))
    return SearchProblem(space=SearchSpace((*beside, parameter)), direction=ObjectiveType.MINIMIZE, seed=0)
