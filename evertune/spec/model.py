"""The Katib v1beta1 Experiment as pydantic models, with evertune's extensions in the same document.

Only shapes live here: every field is optional, so that `rules` can name all that is missing at once instead of
stopping at the first. Field names are Katib's in snake case; `model_dump(by_alias=True, exclude_none=True)` is the
manifest. Unknown fields are dropped, as Katib drops them (`structure` warns about each).
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

JsonDict = dict[str, Any]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _names(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _count(value: object) -> object:
    return {"count": value} if isinstance(value, int | float | str) else value


def _from(value: object) -> object:
    return {"from": value} if isinstance(value, list | str) else value


Int32 = Annotated[int, BeforeValidator(_whole), Field(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, BeforeValidator(_whole), Field(ge=-(2**63), le=2**63 - 1)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Model(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="ignore", alias_generator=to_camel, validate_assignment=False, protected_namespaces=()
    )


class ObjectMeta(Model):
    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    # Written by an API server; accepted in exported files and dropped from the manifest.
    uid: Any = Field(default=None, exclude=True)
    resource_version: Any = Field(default=None, exclude=True)
    generation: Any = Field(default=None, exclude=True)
    creation_timestamp: Any = Field(default=None, exclude=True)
    deletion_timestamp: Any = Field(default=None, exclude=True)
    deletion_grace_period_seconds: Any = Field(default=None, exclude=True)
    finalizers: Any = Field(default=None, exclude=True)
    owner_references: Any = Field(default=None, exclude=True)
    managed_fields: Any = Field(default=None, exclude=True)
    self_link: Any = Field(default=None, exclude=True)


class MetricStrategy(Model):
    name: str | None = None
    value: str | None = None


class ObjectiveSpec(Model):
    type: str | None = None
    goal: Number | None = None
    objective_metric_name: str | None = None
    additional_metric_names: list[str] | None = None
    metric_strategies: list[MetricStrategy] | None = None


class FurtherObjectiveSpec(Model):
    """An objective beside the first one. `objectiveMetricName` is another word for `metric`."""

    type: str | None = None
    metric: str | None = None
    objective_metric_name: str | None = None
    goal: Number | None = None  # only of the first one, which `objective` is then

    @property
    def name(self) -> str:
        return self.metric or self.objective_metric_name or ""


class ConstraintSpec(Model):
    """A condition on a metric: at most `le`, or at least `ge`."""

    metric: str | None = None
    le: Number | None = None
    ge: Number | None = None


class WarmStartSpec(Model):
    """`from`: one name or several, of experiments of the same namespace unless they say NAMESPACE/NAME."""

    sources: Annotated[list[str] | None, BeforeValidator(_names)] = Field(default=None, alias="from")
    mode: str | None = None  # identical | transfer


class ReplicatesSpec(Model):
    count: Int32 | None = None
    aggregate: str | None = None  # mean | median


class AlgorithmSetting(Model):
    name: str | None = None
    value: str | None = None


class AlgorithmSpec(Model):
    """Also the shape of `earlyStopping`."""

    algorithm_name: str | None = None
    algorithm_settings: list[AlgorithmSetting] | None = None


class FeasibleSpace(Model):
    min: str | None = None
    max: str | None = None
    step: str | None = None
    items: list[str] | None = Field(default=None, alias="list")
    distribution: str | None = None


class ParameterSpec(Model):
    name: str | None = None
    parameter_type: str | None = None
    feasible_space: FeasibleSpace | None = None
    when: dict[str, Any] | None = None  # name of another parameter -> its values for which this one exists


class TrialParameter(Model):
    name: str | None = None
    description: str | None = None
    reference: str | None = None


class ConfigMapSource(Model):
    config_map_name: str | None = None
    config_map_namespace: str | None = None
    template_path: str | None = None


class TrialTemplate(Model):
    retain: bool | None = None
    trial_spec: JsonDict | None = None
    config_map: ConfigMapSource | None = None
    trial_parameters: list[TrialParameter] | None = None
    primary_pod_labels: dict[str, str] | None = None
    primary_container_name: str | None = None
    success_condition: str | None = None
    failure_condition: str | None = None


class HttpHeader(Model):
    name: str | None = None
    value: str | None = None


class HttpGet(Model):
    path: str | None = None
    port: Int32 | str | None = None
    host: str | None = None
    scheme: str | None = None
    http_headers: list[HttpHeader] | None = None


class FileSystemPath(Model):
    path: str | None = None
    kind: str | None = None
    format: str | None = None


class MetricsFilter(Model):
    metrics_format: list[str] | None = None


class MetricsSource(Model):
    http_get: HttpGet | None = None
    file_system_path: FileSystemPath | None = None
    filter: MetricsFilter | None = None


class CollectorKind(Model):
    kind: str | None = None
    custom_collector: JsonDict | None = None


class MetricsCollectorSpec(Model):
    source: MetricsSource | None = None
    collector: CollectorKind | None = None


class GraphConfig(Model):
    num_layers: Int32 | None = None
    input_sizes: list[Int32] | None = None
    output_sizes: list[Int32] | None = None


class NasOperation(Model):
    operation_type: str | None = None
    parameters: list[ParameterSpec] | None = None


class NasConfig(Model):
    graph_config: GraphConfig | None = None
    operations: list[NasOperation] | None = None


class OutOfMemoryPolicy(Model):
    memory: str | Number | None = None  # "x1.5": by how much each attempt has more than the one before
    max: str | Number | None = None  # a quantity, which no attempt exceeds


class FailurePolicy(Model):
    on_oom: OutOfMemoryPolicy | None = Field(default=None, alias="onOOM")


class ExperimentSpec(Model):
    parameters: list[ParameterSpec] | None = None
    objective: ObjectiveSpec | None = None
    algorithm: AlgorithmSpec | None = None
    early_stopping: AlgorithmSpec | None = None
    trial_template: TrialTemplate | None = None
    parallel_trial_count: Int32 | None = None
    max_trial_count: Int32 | None = None
    max_failed_trial_count: Int32 | None = None
    metrics_collector_spec: MetricsCollectorSpec | None = None
    nas_config: NasConfig | None = None
    resume_policy: str | None = None

    # evertune's own, in the same document
    seed: Int64 | None = None
    deadline: str | Number | None = None  # "2h30m" or seconds, for the whole experiment
    trial_deadline: str | Number | None = None
    working_dir: str | None = None
    on_completion: str | None = None  # cancel | drain: what happens to running trials at the verdict
    failure_policy: FailurePolicy | None = None
    objectives: list[FurtherObjectiveSpec] | None = None  # beside `objective`
    constraints: list[ConstraintSpec] | None = None
    parameter_constraints: list[str] | None = None
    initial_trials: list[JsonDict] | None = None
    warm_start: Annotated[WarmStartSpec | None, BeforeValidator(_from)] = None
    on_duplicate: str | None = None  # run | reuse | resample
    on_failure: str | None = None  # ignore | worst
    replicates: Annotated[ReplicatesSpec | None, BeforeValidator(_count)] = None


class Experiment(Model):
    """A whole Experiment. Made by `check` or `load_experiment`: then complete, defaulted and free of problems."""

    api_version: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: ExperimentSpec | None = None
    status: Any = Field(default=None, exclude=True)

    @property
    def name(self) -> str:
        return (self.metadata and self.metadata.name) or ""

    @property
    def namespace(self) -> str:
        return (self.metadata and self.metadata.namespace) or "default"

    @property
    def annotations(self) -> Mapping[str, str]:
        return (self.metadata and self.metadata.annotations) or {}

    def manifest(self) -> JsonDict:
        """The full, defaulted document as JSON-able data."""
        return self.model_dump(by_alias=True, exclude_none=True)
