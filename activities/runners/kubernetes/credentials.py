"""How to reach a cluster, as a kubeconfig or a pod's own service account says: address, TLS, token, exec plugins.

Called by `api`, and by the operator for kopf. All of it is `kubernetes.aio`'s work, which is imported when a cluster is
first asked for; here its silences become sentences. Nothing is sent to the cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evertune.errors import EnvironmentProblem, UsageError

IN_CLUSTER = "in-cluster"
_POD = "KUBERNETES_SERVICE_HOST"
_PLUGIN_LOG = "kubernetes.aio.config.kube_config"


@dataclass(slots=True)
class Access:
    """The way to one cluster; `context` names it."""

    context: str
    server: str
    tls: ssl.SSLContext | None  # None on plain HTTP
    server_name: str | None
    proxy: str | None
    configuration: Any

    async def headers(self) -> dict[str, str]:
        """The Authorization header, if there is one; a pod's token is read again as it is renewed."""
        with _problems(self.context):
            token = await self.configuration.get_api_key_with_prefix("BearerToken")
        if token:
            return {"Authorization": token}
        if self.configuration.username:
            return {"Authorization": self.configuration.get_basic_auth_token()}
        return {}


async def load(context: str | None, kubeconfig: str | None) -> Access:
    """Read the configuration anew, and run its exec plugin if it has one.

    Without `kubeconfig`: ~/.kube/config, else the account of the pod that this is. Raises UsageError for a context
    that is not there, EnvironmentProblem for files and plugins that are missing or unusable.
    """
    if context == IN_CLUSTER or (kubeconfig is None and not _home().exists() and os.environ.get(_POD)):
        return _in_cluster()
    files = kubeconfig or str(_home())
    if not any(Path(file).expanduser().exists() for file in files.split(os.pathsep) if file):
        raise EnvironmentProblem(
            f"there is no kubeconfig at {files}",
            "set EVERTUNE_KUBECONFIG to the file that names the cluster, or use --backend local",
        )
    return await _from_files(files, context)


def said(kubeconfig: str | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether anything says how to reach a cluster. Nothing is read or asked."""
    if kubeconfig is not None or environ.get(_POD):
        return True
    home = environ.get("HOME")
    return home is not None and (Path(home) / ".kube" / "config").is_file()


def contexts(kubeconfig: str | None) -> tuple[list[str], str | None]:
    """The names of a kubeconfig's contexts, and the current one. Raises EnvironmentProblem."""
    from kubernetes.aio.config import kube_config

    files = kubeconfig or str(_home())
    with _problems(files):
        merger = kube_config.KubeConfigMerger(files)  # type: ignore[no-untyped-call]
        value = merger.config.value if merger.config is not None else {}
        names = [entry.value["name"] if hasattr(entry, "value") else entry["name"] for entry in value["contexts"]]
        # As kubectl: of several files the first that names one. The library takes the last.
        said = (content.get("current-context") for content in merger.config_files.values())
        return names, next(filter(None, said), None)


def _home() -> Path:
    return Path.home() / ".kube" / "config"


def _in_cluster() -> Access:
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise EnvironmentProblem(
            f"this is not a pod with a service account: {str(error).rstrip('.')}",
            "set EVERTUNE_KUBECONFIG to a file that names the cluster",
        ) from None
    return _access(IN_CLUSTER, configuration)


async def _from_files(files: str, context: str | None) -> Access:
    from kubernetes.aio import client, config

    names, current = contexts(files)
    chosen = context or current
    if chosen is None:
        raise UsageError(
            f"the kubeconfig at {files} has no current context",
            f"name one of its contexts with EVERTUNE_KUBE_CONTEXT: {', '.join(sorted(names)) or 'it has none'}",
        )
    if chosen not in names:
        raise UsageError(
            f"the kubeconfig at {files} has no context {chosen}", f"it has: {', '.join(sorted(names)) or 'none'}"
        )
    configuration = client.Configuration()
    with _problems(files), _plugin_words() as said:
        loader = await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=files, context=chosen, client_configuration=configuration, persist_config=False
        )
    user = loader._user
    if user is not None and "exec" in user and not configuration.api_key and not configuration.cert_file:
        command = user["exec"].safe_get("command")
        raise EnvironmentProblem(
            f"the credential plugin {command} of the context {chosen} gave no credentials"
            + (f": {said[-1]}" if said else ""),
            "run it by hand with the same environment, or log in again as your cluster's provider says",
        )
    return _access(chosen, configuration)


def _access(context: str, configuration: Any) -> Access:
    from kubernetes.aio.client.rest import RESTClientObject

    tls: ssl.SSLContext | None = None
    if configuration.host.startswith("https:"):
        with _problems(context):
            tls = RESTClientObject(configuration).ssl_context
    return Access(
        context=context,
        server=configuration.host.rstrip("/"),
        tls=tls,
        server_name=configuration.tls_server_name or None,
        proxy=configuration.proxy or None,
        configuration=configuration,
    )


@contextlib.contextmanager
def _problems(where: str) -> Iterator[None]:
    import yaml
    from kubernetes.aio.config import ConfigException

    try:
        yield
    except (ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise EnvironmentProblem(f"the access to the cluster ({where}) cannot be used: {text}") from None


@contextlib.contextmanager
def _plugin_words() -> Iterator[list[str]]:
    """The client library logs what went wrong with an exec plugin and goes on without; here it is caught."""
    said: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(" ".join(record.getMessage().split()))

    logger, handler = logging.getLogger(_PLUGIN_LOG), Handler(logging.ERROR)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
