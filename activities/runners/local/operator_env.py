"""The variables that a controller adds to the pods of a distributed job: names, order and values, as v1.9.0 of the
Training Operator and the Job controller write them.

Pure. Hosts and ports come from an `Addresses`: `Local` for processes of this machine, `InCluster` for what a cluster's
controller would have written, which tests compare with pods that it really made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from activities.runners.local.shape import INDEXED, Shape
from evertune.protocols import JsonDict

LOCALHOST = "127.0.0.1"
JOB_INDEX = "batch.kubernetes.io/job-completion-index"
REPLICA_LABEL = "training.kubeflow.org"


class Addresses(Protocol):
    """Where replicas of one job find one another."""

    def host(self, role: str, index: int) -> str:
        """As a pod of the same namespace would say it."""
        ...

    def full_host(self, role: str, index: int) -> str:
        """The same with its namespace."""
        ...

    def port(self, role: str, index: int) -> int: ...

    def outside(self, host: str) -> str:
        """A host that the user wrote himself: that of a replica, or one that has nothing to do with the job."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """Every replica on this machine, each with a port of its own: the ports of one host collide."""

    shape: Shape
    ports: Mapping[tuple[str, int], int]

    def host(self, role: str, index: int) -> str:
        return LOCALHOST

    def full_host(self, role: str, index: int) -> str:
        return LOCALHOST

    def port(self, role: str, index: int) -> int:
        return self.ports[role, index]

    def outside(self, host: str) -> str:
        services = {self.shape.service(role, index) for role, index in self.ports}
        return LOCALHOST if host.partition(".")[0] in services else host


@dataclass(frozen=True, slots=True)
class InCluster:
    """As the operator says it; `domain` is its CUSTOM_CLUSTER_DOMAIN."""

    shape: Shape
    domain: str = ""

    def host(self, role: str, index: int) -> str:
        return self.shape.service(role, index)

    def full_host(self, role: str, index: int) -> str:
        full = f"{self.shape.service(role, index)}.{self.shape.namespace}.svc"
        return f"{full}.{self.domain}" if self.domain else full

    def port(self, role: str, index: int) -> int:
        """The port of that name in the framework's container, else the default of the kind."""
        operator = self.shape.operator
        if operator is None:
            return 0
        for container in self.shape.roles[role].template["spec"]["containers"]:
            if container.get("name") == operator.container:
                for port in container.get("ports") or ():
                    if port.get("name") == operator.port_name:
                        return int(port["containerPort"])
        return operator.port

    def outside(self, host: str) -> str:
        return host


def labels(shape: Shape, role: str, index: int) -> dict[str, str]:
    """Of the replica's pod: its template's, and those that its controller adds."""
    own = {str(k): str(v) for k, v in ((shape.roles[role].template.get("metadata") or {}).get("labels") or {}).items()}
    if role == INDEXED:
        names = {"batch.kubernetes.io/job-name": shape.name, "job-name": shape.name, JOB_INDEX: str(index)}
        return {**own, **names}
    own |= {
        f"{REPLICA_LABEL}/operator-name": f"{shape.kind.lower()}-controller",
        f"{REPLICA_LABEL}/job-name": shape.name,
        f"{REPLICA_LABEL}/replica-type": role.lower(),
        f"{REPLICA_LABEL}/replica-index": str(index),
    }
    if shape.leads(role, index):
        own[f"{REPLICA_LABEL}/job-role"] = "master"
    return own


def pod_variables(shape: Shape, addresses: Addresses) -> dict[str, list[JsonDict]]:
    """Per name of a pod the `env` of its framework's container: the user's own entries, then the controller's.

    For an Indexed Job it is the first container, and the names lack the five characters that the controller appends.
    """
    found = {}
    for role in shape.roles.values():
        containers = role.template["spec"]["containers"]
        name = shape.operator.container if shape.operator else containers[0]["name"]
        container = next(container for container in containers if container["name"] == name)
        for index in range(role.count):
            found[shape.service(role.name, index)] = with_variables(shape, role.name, index, addresses, container)[
                "env"
            ]
    return found


def with_variables(shape: Shape, role: str, index: int, addresses: Addresses, container: JsonDict) -> JsonDict:
    """The container of a replica with the controller's variables after the user's own."""
    own = container.get("env") or []
    added = variables(shape, role, index, addresses, container=str(container.get("name")))
    if role == INDEXED:  # of this one the user's own stands
        added = [entry for entry in added if entry["name"] not in {variable.get("name") for variable in own}]
    return {**container, "env": [*own, *added]}


def variables(shape: Shape, role: str, index: int, addresses: Addresses, *, container: str) -> list[JsonDict]:
    """Entries of `env` for one container of one replica, to stand after the user's own."""
    if shape.kind == "TFJob":
        # Only this container gets it, and no job of a single replica does.
        if container != "tensorflow" or shape.total == 1:
            return []
        return [_is("TF_CONFIG", _tf_config(shape, role, index, addresses))]
    if shape.kind == "PyTorchJob":
        return _pytorch(shape, role, index, addresses)
    if shape.kind == "XGBoostJob":
        return _xgboost(shape, role, index, addresses)
    if shape.kind == "JAXJob":
        return [
            _is("PYTHONUNBUFFERED", 1),
            _is("COORDINATOR_PORT", addresses.port("Worker", 0)),
            _is("COORDINATOR_ADDRESS", addresses.host("Worker", 0)),
            _is("NUM_PROCESSES", shape.total),
            _is("PROCESS_ID", index),
        ]
    if shape.kind == "PaddleJob":
        return _paddle(shape, role, index, addresses)
    return [_field("JOB_COMPLETION_INDEX", f"metadata.labels['{JOB_INDEX}']")]


def _tf_config(shape: Shape, role: str, index: int, addresses: Addresses) -> str:
    def endpoint(name: str, number: int) -> str:
        return f"{addresses.full_host(name, number)}:{addresses.port(name, number)}"

    cluster = {name.lower(): [endpoint(name, i) for i in range(shape.count(name))] for name in sorted(shape.roles)}
    task = {"type": role.lower(), "index": index}
    if not shape.spec.get("enableDynamicWorker"):
        return _json({"cluster": cluster, "task": task, "environment": "cloud"})
    # Go writes a list that was never made as null.
    sparse: JsonDict = {"worker": {}, "ps": []}
    if role == "PS":
        sparse["ps"] = [cluster["ps"][index]]
    elif role == "Worker":
        sparse = {"worker": {str(index): cluster["worker"][index]}, "ps": cluster.get("ps")}
    return _json({"cluster": sparse, "task": task})


def _pytorch(shape: Shape, role: str, index: int, addresses: Addresses) -> list[JsonDict]:
    elastic = shape.spec.get("elasticPolicy")
    processes = shape.spec.get("nprocPerNode")
    if processes is None and (elastic is None or elastic.get("nProcPerNode") is None):
        processes = "auto"  # the operator's default
    found = [_is("PYTHONUNBUFFERED", 1)]
    if "Master" in shape.roles:
        port, host = addresses.port("Master", 0), addresses.host("Master", 0)
        rank = index + 1 if role == "Worker" else index
        found += [
            _is("MASTER_PORT", port),
            _is("PET_MASTER_PORT", port),
            _is("MASTER_ADDR", host),
            _is("PET_MASTER_ADDR", host),
            _is("WORLD_SIZE", shape.total * _number(processes)),
            _is("RANK", rank),
            _is("PET_NODE_RANK", rank),
        ]
    if processes is not None:
        found.append(_is("PET_NPROC_PER_NODE", processes))
    if elastic is None:
        return [*found, _is("PET_NNODES", shape.total)]
    return found + _elastic(shape, elastic, addresses)


def _elastic(shape: Shape, elastic: JsonDict, addresses: Addresses) -> list[JsonDict]:
    given_host, given_port = elastic.get("rdzvHost"), elastic.get("rdzvPort")
    host = addresses.host("Worker", 0) if given_host is None else addresses.outside(given_host)
    # A port that the user chose for one of the replicas is in use by many trials here; that of another host stands.
    ours = given_port is None or (isinstance(addresses, Local) and host == LOCALHOST)
    port = addresses.port("Worker", 0) if ours else given_port
    least, most = elastic.get("minReplicas"), elastic.get("maxReplicas")
    if least is None and most is None:
        least = most = shape.count("Worker")
    found = [
        _is("PET_RDZV_ENDPOINT", f"{host}:{port}"),
        _is("PET_RDZV_BACKEND", elastic.get("rdzvBackend") or "c10d"),
        _is("PET_NNODES", f"{most if least is None else least}:{least if most is None else most}"),
    ]
    for name, variable in (
        ("maxRestarts", "PET_MAX_RESTARTS"),
        ("nProcPerNode", "PET_NPROC_PER_NODE"),
        ("rdzvId", "PET_RDZV_ID"),
    ):
        if elastic.get(name) is not None:
            found.append(_is(variable, elastic[name]))
    if elastic.get("rdzvConf"):
        found.append(_is("PET_RDZV_CONF", ",".join(f"{pair['key']}={pair['value']}" for pair in elastic["rdzvConf"])))
    if elastic.get("standalone"):
        found.append(_is("PET_STANDALONE", ""))
    return found


def _xgboost(shape: Shape, role: str, index: int, addresses: Addresses) -> list[JsonDict]:
    found = [
        _is("MASTER_PORT", addresses.port("Master", 0)),
        _is("MASTER_ADDR", addresses.host("Master", 0)),
        _is("WORLD_SIZE", shape.total),
        _is("RANK", index + (shape.count("Master") if role == "Worker" else 0)),
        _is("PYTHONUNBUFFERED", 1),
    ]
    if shape.total > 1:
        workers = [addresses.host("Worker", number) for number in range(shape.total - 1)]
        found += [_is("WORKER_PORT", addresses.port("Worker", 0)), _is("WORKER_ADDRS", ",".join(workers))]
    return found


def _paddle(shape: Shape, role: str, index: int, addresses: Addresses) -> list[JsonDict]:
    lead = "Master" if "Master" in shape.roles else "Worker"
    found = [
        _is("PYTHONUNBUFFERED", 1),
        _is("PADDLE_JOB_ID", shape.name),
        _is("PADDLE_NNODES", shape.total),
    ]
    port = addresses.port(lead, 0)
    if role == lead and index == 0:
        # The master cannot reach itself by the name of its service, so it is told its own address.
        found += [_field("POD_IP_DUMMY", "status.podIP"), _is("PADDLE_MASTER", f"$(POD_IP_DUMMY):{port}")]
    else:
        found.append(_is("PADDLE_MASTER", f"{addresses.host(lead, 0)}:{port}"))
    if lead == "Master":
        found.append(_is("PADDLE_SERVER_NUM" if role == "Master" else "PADDLE_TRAINER_NUM", 1))
    return found


def _number(processes: Any) -> int:
    """`auto`, `cpu` and `gpu` count as one: the program itself finds out."""
    try:
        return int(processes)
    except (TypeError, ValueError):
        return 1


def _is(name: str, value: Any) -> JsonDict:
    return {"name": name, "value": str(value)}


def _field(name: str, path: str) -> JsonDict:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
