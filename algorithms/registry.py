"""Finds algorithms by name: the built-in ones in a table, third parties' through the entry point `evertune.algorithms`.

Asked by `admit` and `evertune validate` (check) and by the ask process (create). Checking a built-in imports no
numeric library; creating one does, lazily.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from algorithms import auto, drawing
from algorithms.nas.checks import PARAMETERLESS, graph_problems
from algorithms.nas.network import ARCHITECTURE, NN_CONFIG
from algorithms.plugins import Plugins, warnings_of
from algorithms.settings import Rule
from algorithms.steering import features, steered
from algorithms.stoppers import registry as stoppers
from evertune.domain.metrics import Objective
from evertune.domain.space import SearchProblem
from evertune.errors import AlgorithmError, Problem
from evertune.protocols import Algorithm, Feature

ENTRY_POINT_GROUP = "evertune.algorithms"
_NAME = "spec.algorithm.algorithmName"

BUILT_IN = {
    "random": "algorithms.hyperopt_search:Random",
    "sobol": "algorithms.sobol:Sobol",
    "grid": "algorithms.grid:Grid",
    "tpe": "algorithms.hyperopt_search:Tpe",
    "anneal": "algorithms.hyperopt_search:Anneal",
    "multivariate-tpe": "algorithms.optuna_search:MultivariateTpe",
    "bayesianoptimization": "algorithms.bayesian:BayesianOptimization",
    "gp": "algorithms.optuna_search:Gp",
    "cmaes": "algorithms.cma:CmaEs",
    "motpe": "algorithms.optuna_search:Motpe",
    "nsgaii": "algorithms.optuna_search:NsgaII",
    "hyperband": "algorithms.hyperband:Hyperband",
    "asha": "algorithms.asha:Asha",
    "bohb": "algorithms.bohb:Bohb",
    "pbt": "algorithms.pbt:Pbt",
    "enas": "algorithms.enas:Enas",
    "nas-evolution": "algorithms.nas_evolution:NasEvolution",
    "darts": "algorithms.darts:Darts",
    "auto": "algorithms.auto:Auto",
}

PLUGINS: Plugins[Algorithm] = Plugins(ENTRY_POINT_GROUP, BUILT_IN, noun="algorithm", listed="it runs")

# Those that need no library and no time: asked in the worker itself.
_IN_PROCESS = frozenset({"grid", "darts", "hyperband", "asha", "pbt"})

# What the answers of an algorithm depend on, where its class does not say so by `libraries`.
_LIBRARIES = {
    "random": ("hyperopt", "numpy"),
    "tpe": ("hyperopt", "numpy", "scipy"),
    "multivariate-tpe": ("optuna", "numpy"),
    "anneal": ("hyperopt", "numpy"),
    "bayesianoptimization": ("scikit-optimize", "scikit-learn", "numpy", "scipy"),
    "cmaes": ("cmaes", "numpy"),
    "sobol": ("scipy", "numpy"),
    "nsgaii": ("optuna", "numpy"),
    "motpe": ("optuna", "numpy"),
    "gp": ("optuna", "torch", "greenlet", "numpy", "scipy"),
    "enas": ("numpy",),
}

# Those that fit a model of all trials for each ask, where their class does not say so by `heavy`.
_HEAVY = frozenset({"bayesianoptimization", "gp"})


def names() -> tuple[str, ...]:
    """Every name that a spec may use: the built-in ones, then third parties'."""
    return PLUGINS.names()


def closest(name: str) -> str | None:
    """The name that somebody may have meant."""
    return PLUGINS.closest(name)


def built_in(name: str) -> bool:
    return name in BUILT_IN


def in_process(name: str) -> bool:
    """True for algorithms that may be asked in a thread of the worker."""
    return name in _IN_PROCESS


def get(name: str) -> type[Algorithm]:
    """The class behind a name. Raises AlgorithmError for one that is not registered or cannot be imported."""
    return PLUGINS.get(name)


def settings(name: str) -> Mapping[str, Rule]:
    """The settings of an algorithm, for whoever lists them; empty where a third party's says nothing of them."""
    found: Mapping[str, Rule] = getattr(get(name), "settings", {})
    return found


def resolved(name: str, problem: SearchProblem) -> auto.Choice:
    """The algorithm that does the work, and why when `auto` took it."""
    return auto.choose(problem) if name == auto.NAME else auto.Choice(name, "")


def create(name: str, problem: SearchProblem) -> Algorithm:
    """The algorithm for this problem, with what is done around it where the problem asks for that."""
    return steered.around(get(resolved(name, problem).algorithm), problem)


def steers(name: str, problem: SearchProblem) -> bool:
    """Whether anything is done around the algorithm for this problem."""
    return bool(features.steers(get(name), problem))


def libraries(name: str) -> tuple[str, ...]:
    """Distributions whose versions its answers depend on; of a third party's algorithm at least its own."""
    said: tuple[str, ...] | None = getattr(get(name), "libraries", None)
    if said is not None:
        return said
    if name in BUILT_IN:
        return _LIBRARIES.get(name, ())
    distribution = PLUGINS.third_party[name].dist
    return () if distribution is None else (distribution.name,)


def heavy(name: str) -> bool:
    """Whether an ask may take long, by what the algorithm says of itself; of a third party's nobody knows."""
    return name not in BUILT_IN or bool(getattr(get(name), "heavy", name in _HEAVY))


def ends(name: str, problem: SearchProblem) -> bool:
    """Whether it may come to where it has nothing more to suggest, by what it says of itself."""
    own: Callable[[SearchProblem], bool] | None = getattr(get(name), "ends", None)
    if own is not None and own(problem):
        return True
    return problem.on_duplicate == "resample" and drawing.count(problem.space) is not None


def supports(name: str) -> frozenset[Feature]:
    """All that works with the algorithm of this name. Raises AlgorithmError as `get`."""
    return features.supported(get(name))


def supporting(feature: Feature) -> list[str]:
    """The names of all algorithms that this works with, sorted."""
    found = []
    for name in names():
        try:
            if feature in supports(name):
                found.append(name)
        except AlgorithmError:  # a plugin that cannot be imported supports nothing
            continue
    return sorted(found)


def check(name: str, problem: SearchProblem) -> Sequence[Problem]:
    """Everything wrong with the name, the settings and the space for this algorithm. Raises nothing."""

    def everything() -> Sequence[Problem]:
        return [*get(name).check(problem), *_unsupported(name, problem), *_network_problems(name, problem)]

    return PLUGINS.checked(name, _NAME, name, everything)


def _network_problems(name: str, problem: SearchProblem) -> Sequence[Problem]:
    """What keeps the choices of a network from being a space, for an algorithm that knows nothing of networks."""
    if (
        problem.space
        or name == auto.NAME
        or Feature.NAS_CONFIG not in features.steers(get(name), problem) & supports(name)
    ):
        return ()
    return graph_problems(name, problem, parameterless=PARAMETERLESS)


def handed_out(name: str, problem: SearchProblem) -> Sequence[str] | None:
    """The names of the values that a trial gets. None: a third party's algorithm that does not say in `hands_out`."""
    if problem.nas is None:
        return problem.space.names()
    kind = get(name)
    said: Sequence[str] | None = getattr(kind, "hands_out", None)
    return (ARCHITECTURE, NN_CONFIG) if said is None and Feature.NAS_CONFIG not in features.handled(kind) else said


def warnings(name: str, problem: SearchProblem) -> Sequence[Problem]:
    """What to mind of an experiment that `check` has found nothing wrong with. Raises nothing."""
    return warnings_of(get(name), _NAME, problem)


# Where a spec asks for a feature. The first parameter with a condition is found by `_place`.
_PLACES = {
    Feature.OBJECTIVES: "spec.objectives",
    Feature.CONSTRAINTS: "spec.constraints",
    Feature.PARAMETER_CONSTRAINTS: "spec.parameterConstraints",
    Feature.INITIAL_TRIALS: "spec.initialTrials",
    Feature.WARM_START: "spec.warmStart",
    Feature.ON_DUPLICATE: "spec.onDuplicate",
    Feature.ON_FAILURE: "spec.onFailure",
    Feature.EARLY_STOPPING: "spec.earlyStopping",
    Feature.NAS_CONFIG: "spec.nasConfig",
}


def _unsupported(name: str, problem: SearchProblem) -> list[Problem]:
    """What the problem asks of the algorithm in vain."""
    found = []
    missing = features.wanted(problem) - supports(name)
    for feature in (feature for feature in Feature if feature in missing):
        others = supporting(feature)
        hint = f"algorithms that can: {', '.join(others)}" if others else "no algorithm of this version can"
        message = f"{name} cannot do {feature}"
        found.append(Problem(path=_place(feature, problem), type="Forbidden", message=message, hint=hint))
    return found


def _place(feature: Feature, problem: SearchProblem) -> str:
    if feature is Feature.WHEN:
        index = next(index for index, parameter in enumerate(problem.space) if parameter.when)
        return f"spec.parameters[{index}].when"
    return _PLACES[feature]


class Registry:
    """The registry as validation asks for it (`protocols.AlgorithmCatalog`)."""

    def names(self) -> Sequence[str]:
        return names()

    def check(self, name: str, problem: SearchProblem) -> Sequence[Problem]:
        return check(name, problem)

    def settings(self, name: str) -> Collection[str]:
        return settings(name)

    def handed_out(self, name: str, problem: SearchProblem) -> Sequence[str] | None:
        return handed_out(name, problem)

    def warnings(self, name: str, problem: SearchProblem) -> Sequence[Problem]:
        return warnings(name, problem)

    def stoppers(self) -> Sequence[str]:
        return stoppers.names()

    def check_stopper(self, name: str, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]:
        return stoppers.check(name, settings, objective)

    def stopper_warnings(
        self, name: str, settings: Mapping[str, str], objective: Objective, problem: SearchProblem
    ) -> Sequence[Problem]:
        return stoppers.warnings(name, settings, objective, problem)
