"""What this process was told by its environment: EVERTUNE_* variables, checked once, and the paths below the home.

Called by every entry point (CLI, worker, stack parent) before anything else, hence standard library only. It refuses
unusable values with one sentence that names the variable and the rule; it never opens a database or a connection.
`home_id` and `prepare_home` are the only parts that write.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import evertune.variables as values
from evertune.errors import EnvironmentProblem, UsageError

Durability = Literal["normal", "full"]
Backend = Literal["local", "kubernetes"]
LogFormat = Literal["auto", "human", "json"]
CollectorMode = Literal["auto", "native", "classic", "logs"]
PodIdentity = Literal["token", "account"]

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a process. Build it with `Settings.load()`; the field comments name the variable behind each."""

    # EVERTUNE_HOME: absolute directory for everything that evertune keeps on this machine. Default ~/.evertune.
    home: Path
    # EVERTUNE_NAMESPACE: namespace of experiments whose manifest names none, as Katib's. Default "default".
    namespace: str = "default"
    # EVERTUNE_DATABASE_URL: SQLAlchemy URL. Default: SQLite in the home, so that nothing needs to be installed.
    database_url: str
    # EVERTUNE_DURABILITY: "normal" survives the death of any process; "full" also power loss, at an fsync per commit.
    durability: Durability = "normal"
    # EVERTUNE_TEMPORAL_ADDRESS or TEMPORAL_ADDRESS: host:port of a Temporal server. None: the embedded one.
    temporal_address: str | None = None
    # EVERTUNE_TEMPORAL_NAMESPACE or TEMPORAL_NAMESPACE: Temporal's namespace; has nothing to do with `namespace`.
    temporal_namespace: str = "default"
    # EVERTUNE_TEMPORAL_TLS or TEMPORAL_TLS: true or false. Default: TLS when TEMPORAL_API_KEY or a TEMPORAL_TLS_*
    # variable is set, which mean what they mean to every client of Temporal. The embedded server never has it.
    temporal_tls: bool | None = None
    # EVERTUNE_TEMPORAL_PORT: port of the embedded server on 127.0.0.1. None: a free one, kept for the home's lifetime.
    temporal_port: int | None = None
    # EVERTUNE_UI_PORT: port of the embedded server's web UI on 127.0.0.1. None: as above.
    ui_port: int | None = None
    # EVERTUNE_UI_URL: where the web UI of a configured Temporal server lives. None: no links are shown for it.
    ui_url: str | None = None
    # EVERTUNE_SERVER_HOST: address that the server listens on. The default is for this machine only; 0.0.0.0 is all.
    server_host: str = "127.0.0.1"
    # EVERTUNE_SERVER_PORT: port of `evertune server`. None: a free one, kept for the home's lifetime.
    server_port: int | None = None
    # EVERTUNE_INGEST_URL: what trials are told of where reports go, as http://host:port. Default: this home's server,
    # which trials in a cluster cannot reach.
    ingest_url: str | None = None
    # EVERTUNE_INGEST_KEYS: secrets that sign the tokens of trials, as id:hex[,id:hex]; the first one signs, all are
    # accepted. To rotate, put the new one first and drop the old one when its trials have ended. Default: one that is
    # made in the home.
    ingest_keys: str | None = dataclasses.field(default=None, repr=False)
    # EVERTUNE_BACKEND: where trials run unless the experiment says. Default: kubernetes inside a cluster, else local.
    backend: Backend = "local"
    # EVERTUNE_KUBECONFIG or KUBECONFIG: how to reach clusters, a file or several with colons between. None:
    # ~/.kube/config, or a pod's own account.
    kubeconfig: str | None = None
    # EVERTUNE_KUBE_CONTEXT: the cluster of experiments that name none. None: the kubeconfig's current context.
    kube_context: str | None = None
    # EVERTUNE_COLLECTOR_IMAGE: image of the collector that is put beside trials in a cluster, as its nodes pull it.
    collector_image: str = "evertune/collector:0.1.0"
    # EVERTUNE_COLLECTOR_MODE: auto chooses for each trial; native, classic or logs insist. See docs/kubernetes.md.
    collector_mode: CollectorMode = "auto"
    # EVERTUNE_POD_IDENTITY: how collectors in a cluster show whose reports they bring: token, a key that is made for
    # each attempt, or account, a token of the pod that the cluster itself vouches for. See docs/kubernetes.md.
    pod_identity: PodIdentity = "token"
    # EVERTUNE_LOG_CAP: how much of the log of a trial that has ended is kept, as 16M: a quarter from its head, the rest
    # from its end. Default 16M.
    log_cap: int = 16 << 20
    # EVERTUNE_LOG_RETENTION: days after its end when an experiment's logs are deleted. None: they are kept for ever.
    log_retention_days: float | None = None
    # EVERTUNE_LOG: "level", "format" or "level,format"; formats: auto (human on a terminal, else JSON), human, json.
    log_level: str = "info"
    log_format: LogFormat = "auto"

    # ------------------------------------------------------------------------------------------------ loading

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
        """Settings from the environment; `overrides` by field name win, where None means "not given".

        Raises UsageError that lists every bad value at once: what, where it came from, and the rule.
        """
        unknown = set(overrides) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise TypeError(f"no such settings: {', '.join(sorted(unknown))}")
        problems: list[str] = []
        found: dict[str, Any] = {}
        for name, (variables, parse) in _SOURCES.items():
            if overrides.get(name) is not None:
                where, text = f"option {name}", str(overrides[name])
            else:
                where = next((variable for variable in variables if environ.get(variable, "").strip()), "")
                text = environ.get(where, "").strip()
            if not where:
                continue
            try:
                found[name] = parse(text)
            except ValueError as error:
                problems.append(f'{where} is "{_shown(name, text)}": {error}')
        for name, value in _log_settings(environ, problems).items():
            found.setdefault(name, value)
        if "home" not in found and not problems:
            found["home"] = values.default_home(environ)
        if problems:
            raise UsageError("; ".join(problems), hint="settings are EVERTUNE_* variables: evertune doctor shows them")
        found.setdefault("database_url", f"sqlite:///{found['home'] / 'evertune.db'}")
        if "temporal_address" not in found:  # and what starts the embedded server hands this on
            found["temporal_tls"] = False
        if environ.get("KUBERNETES_SERVICE_HOST"):
            found.setdefault("backend", "kubernetes")
        return cls(**found)

    def told_of_clusters(self) -> dict[str, str]:
        """The variables that a worker goes by in clusters, with their values."""
        collecting = ("COLLECTOR_IMAGE", "COLLECTOR_MODE", "POD_IDENTITY", "INGEST_URL", "SERVER_HOST")
        names = ("KUBECONFIG", "KUBE_CONTEXT", *collecting)
        known = self.environment()
        return {name: known[name] for name in (f"EVERTUNE_{part}" for part in names) if name in known}

    def environment(self) -> dict[str, str]:
        """The EVERTUNE_* variables that make another process of ours load these very settings, secrets included."""
        optional = {
            "EVERTUNE_TEMPORAL_ADDRESS": self.temporal_address,
            "EVERTUNE_TEMPORAL_TLS": None if self.temporal_tls is None else str(self.temporal_tls).lower(),
            "EVERTUNE_TEMPORAL_PORT": self.temporal_port,
            "EVERTUNE_UI_PORT": self.ui_port,
            "EVERTUNE_UI_URL": self.ui_url,
            "EVERTUNE_LOG_RETENTION": self.log_retention_days,
            "EVERTUNE_SERVER_PORT": self.server_port,
            "EVERTUNE_INGEST_URL": self.ingest_url,
            "EVERTUNE_INGEST_KEYS": self.ingest_keys,
            "EVERTUNE_KUBECONFIG": self.kubeconfig,
            "EVERTUNE_KUBE_CONTEXT": self.kube_context,
        }
        return {
            "EVERTUNE_HOME": str(self.home),
            "EVERTUNE_NAMESPACE": self.namespace,
            "EVERTUNE_DATABASE_URL": self.database_url,
            "EVERTUNE_DURABILITY": self.durability,
            "EVERTUNE_TEMPORAL_NAMESPACE": self.temporal_namespace,
            "EVERTUNE_SERVER_HOST": self.server_host,
            "EVERTUNE_BACKEND": self.backend,
            "EVERTUNE_COLLECTOR_IMAGE": self.collector_image,
            "EVERTUNE_COLLECTOR_MODE": self.collector_mode,
            "EVERTUNE_POD_IDENTITY": self.pod_identity,
            "EVERTUNE_LOG_CAP": str(self.log_cap),
            "EVERTUNE_LOG": f"{self.log_level},{self.log_format}",
            **{name: str(value) for name, value in optional.items() if value is not None},
        }

    @property
    def shown_database_url(self) -> str:
        """The database URL without its password, for people and logs."""
        return values.without_password(self.database_url)

    # -------------------------------------------------------------------------------------- below the home

    @property
    def logs_dir(self) -> Path:
        """Logs of Temporal, the worker and their parent; capped in size by the parent."""
        return self.home / "logs"

    @property
    def trials_dir(self) -> Path:
        """The local runner's attempt directories."""
        return self.home / "trials"

    @property
    def temporal_db(self) -> Path:
        return self.home / "temporal.db"

    @property
    def state_file(self) -> Path:
        """What the stack's parent started: process identities and addresses, as JSON."""
        return self.home / "stack.json"

    @property
    def worker_ready_file(self) -> Path:
        """The worker writes its pid here, by rename, once it polls, and keeps it young; removed before each start."""
        return self.home / "worker.ready"

    @property
    def worker_lock_file(self) -> Path:
        """Locked by a worker for its life, also while it does not poll yet."""
        return self.home / "worker.lock"

    @property
    def ingest_key_file(self) -> Path:
        """The key of this home's ingest tokens, where EVERTUNE_INGEST_KEYS gives none; see `evertune.tokens`."""
        return self.home / "ingest.key"

    @property
    def down_file(self) -> Path:
        """There while `down` wants local trials stopped: a worker that ends then stops them first and deletes this."""
        return self.home / "down"

    @cached_property
    def home_id(self) -> str:
        """32 hex digits that name this home on its Temporal server and in its database; made once, for ever.

        Two processes that ask at the same moment for the first time get the same answer.
        """
        self.prepare_home()
        path = self.home / "home_id"
        try:
            with (self.home / "home_id.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not path.exists():
                    draft = path.with_suffix(".new")
                    with draft.open("w", encoding="ascii") as file:
                        file.write(os.urandom(16).hex() + "\n")
                        file.flush()
                        os.fsync(file.fileno())
                    draft.rename(path)
                text = path.read_text(encoding="ascii", errors="replace").strip()
        except OSError as error:
            raise home_problem(self.home, error) from error
        if not re.fullmatch(r"[0-9a-f]{32}", text):
            raise EnvironmentProblem(
                f"{path} is damaged: it must hold 32 hexadecimal digits",
                hint="restore it from a backup, or delete it when no local trial is running",
            )
        return text

    def prepare_home(self) -> None:
        """Create the home if absent and prove that it can be written to. Raises EnvironmentProblem in one sentence."""
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs_dir.mkdir(mode=0o700, exist_ok=True)
            probe = self.home / f".probe-{os.getpid()}"
            try:
                probe.write_bytes(b"\0" * 4096)
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise home_problem(self.home, error) from error


def home_problem(home: Path, error: OSError) -> EnvironmentProblem:
    """One sentence about a home that cannot be used, from what the operating system said."""
    hint = "set EVERTUNE_HOME to a directory that you can write to"
    at = Path(os.fsdecode(error.filename)) if error.filename else home
    name = "" if at.parent == home else f" ({at})" if at != home else ""
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        in_the_way = next((part for part in (at, *at.parents) if part.exists() and not part.is_dir()), at)
        return EnvironmentProblem(f"the home {home} cannot be a directory: {in_the_way} is a file", hint=hint)
    reason = (error.strerror or str(error)).lower()
    return EnvironmentProblem(f"the home {home} cannot be written to: {reason}{name}", hint=hint)


_Parser = Callable[[str], Any]
_SOURCES: dict[str, tuple[tuple[str, ...], _Parser]] = {
    "home": (("EVERTUNE_HOME",), values.home),
    "namespace": (("EVERTUNE_NAMESPACE",), values.namespace),
    "database_url": (("EVERTUNE_DATABASE_URL",), values.database_url),
    "durability": (("EVERTUNE_DURABILITY",), values.one_of("normal", "full")),
    "temporal_address": (("EVERTUNE_TEMPORAL_ADDRESS", "TEMPORAL_ADDRESS"), values.address),
    "temporal_namespace": (("EVERTUNE_TEMPORAL_NAMESPACE", "TEMPORAL_NAMESPACE"), values.temporal_name),
    "temporal_tls": (("EVERTUNE_TEMPORAL_TLS", "TEMPORAL_TLS"), values.flag),
    "temporal_port": (("EVERTUNE_TEMPORAL_PORT",), values.port),
    "ui_port": (("EVERTUNE_UI_PORT",), values.port),
    "ui_url": (("EVERTUNE_UI_URL",), values.http_url),
    "server_host": (("EVERTUNE_SERVER_HOST",), values.host),
    "server_port": (("EVERTUNE_SERVER_PORT",), values.port),
    "ingest_url": (("EVERTUNE_INGEST_URL",), values.http_url),
    "ingest_keys": (("EVERTUNE_INGEST_KEYS",), values.ingest_keys),
    "backend": (("EVERTUNE_BACKEND",), values.one_of("local", "kubernetes")),
    "kubeconfig": (("EVERTUNE_KUBECONFIG", "KUBECONFIG"), values.kubeconfig),
    "kube_context": (("EVERTUNE_KUBE_CONTEXT",), str),
    "collector_image": (("EVERTUNE_COLLECTOR_IMAGE",), values.image),
    "collector_mode": (("EVERTUNE_COLLECTOR_MODE",), values.one_of("auto", "native", "classic", "logs")),
    "pod_identity": (("EVERTUNE_POD_IDENTITY",), values.one_of("token", "account")),
    "log_cap": (("EVERTUNE_LOG_CAP",), values.size),
    "log_retention_days": (("EVERTUNE_LOG_RETENTION",), values.days),
    "log_level": ((), values.one_of(*LOG_LEVELS)),
    "log_format": ((), values.one_of("auto", "human", "json")),
}


def _log_settings(environ: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """EVERTUNE_LOG holds two settings, in any order: `debug`, `json`, `debug,json`."""
    found: dict[str, str] = {}
    text = environ.get("EVERTUNE_LOG", "").strip()
    for word in filter(None, (part.strip().lower() for part in text.split(","))):
        if word in LOG_LEVELS:
            found["log_level"] = word
        elif word in ("auto", "human", "json"):
            found["log_format"] = word
        else:
            problems.append(
                f'EVERTUNE_LOG is "{text}": it holds a level ({", ".join(LOG_LEVELS)}), '
                "a format (auto, human, json), or both with a comma"
            )
            break
    return found


def _shown(name: str, text: str) -> str:
    """A refused value as it may be repeated: never a secret."""
    return "***" if name == "ingest_keys" else values.without_password(text) if name == "database_url" else text
