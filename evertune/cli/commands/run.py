"""`run`, `submit` and `watch`: start experiments, and stay with one until it ends."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from evertune.cli import options
from evertune.cli.follow.loop import Detached, follow, say_detached
from evertune.cli.follow.snapshot import Follower, Snapshot
from evertune.cli.loading import Loaded, load_for_start, start_context
from evertune.cli.output.documents import experiment_document
from evertune.cli.output.forms import Form, text_of
from evertune.cli.output.text import Line
from evertune.cli.session import Session, Stop, session
from evertune.cli.views.sentences import next_commands
from evertune.cli.views.summary import next_lines, summary_lines
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.errors import EvertuneError

if TYPE_CHECKING:
    from evertune.contracts import StartContext

FAILED_READ = 200


def run_(
    file: options.File,
    name: options.NewName = None,
    namespace: options.Namespace = None,
    images: options.Images = None,
    image_root: options.ImageRoot = None,
    configmap: options.ConfigMaps = None,
    backend: options.Backend = None,
    context: options.Context = None,
    detach: options.Detach = False,
    timeout: options.Timeout = None,
    output: options.Output = Form.TABLE,
) -> int:
    """Run an experiment from a file and watch it to its end.

    Starts Temporal and a worker of this home if none runs. Ctrl-C only detaches: the experiment goes on. Exit code 0
    when it succeeded, 1 when it failed or was cancelled.

    For a cluster it looks first whether trials can run there, as evertune doctor does, and starts nothing if not.
    """
    now = session()
    circumstances = start_context(now, backend=backend, images=images, image_roots=image_root or [])
    (loaded,) = load_for_start(now, file, namespace=namespace, name=name, backend=backend, configmaps=configmap)
    if placed(now, loaded, backend, context) == "kubernetes":
        require_cluster(now, loaded, backend, file)
    record = start(now, loaded.manifest, loaded.within(circumstances))
    if detach:
        return submitted(now, [record], output)
    return stay(now, record, title=f"evertune run {file}", timeout_s=timeout, output=output, announce=True)


def submit_(
    file: options.File,
    name: options.NewName = None,
    namespace: options.Namespace = None,
    images: options.Images = None,
    image_root: options.ImageRoot = None,
    configmap: options.ConfigMaps = None,
    backend: options.Backend = None,
    context: options.Context = None,
    output: options.Output = Form.TABLE,
) -> int:
    """Start the experiments of a file and return once they are admitted."""
    now = session()
    circumstances = start_context(now, backend=backend, images=images, image_roots=image_root or [])
    experiments = load_for_start(
        now, file, namespace=namespace, name=name, backend=backend, several=True, configmaps=configmap
    )
    for loaded in experiments:
        placed(now, loaded, backend, context)
    records: list[ExperimentRecord] = []
    try:
        for loaded in experiments:
            records.append(start(now, loaded.manifest, loaded.within(circumstances)))  # noqa: PERF401 - those before an error have started
    except EvertuneError:
        if records:
            submitted(now, records, output)
        raise
    return submitted(now, records, output)


def watch_(
    name: options.Name,
    namespace: options.Namespace = None,
    timeout: options.Timeout = None,
    output: options.Output = Form.TABLE,
) -> int:
    """Follow an experiment until it ends; started by anybody, from any shell."""
    now = session()
    record = now.find(namespace, name)
    return stay(now, record, title=f"evertune watch {name}", timeout_s=timeout, output=output)


# ------------------------------------------------------------------------------------------------------ parts


def placed(now: Session, loaded: Loaded, backend: str | None, context: str | None) -> str:
    """The backend of an experiment, with the cluster that --context names written into it. Raises UsageError."""
    annotations = loaded.manifest["metadata"].get("annotations") or {}
    where = annotations.get("evertune.io/backend") or backend or now.settings.backend
    if context is not None:
        from evertune.cli import clusters

        clusters.place(loaded, context, backend=where)
    return str(where)


def require_cluster(now: Session, loaded: Loaded, backend: str | None, file: Path) -> None:
    """Say what is wrong with the cluster, if anything is; end with 1 when trials cannot run there."""
    from evertune.cli import clusters
    from evertune.cli.views.checks import BROKEN, GOOD, lines, shown

    if clusters.elsewhere(now):
        return
    wish = clusters.wish_to_start(now, loaded, backend)
    checks = [shown(finding) for finding in clusters.findings(now, wish)]
    told = [check for check in checks if check.state != GOOD]
    if told:
        now.err.lines(lines(now, told))
    if any(check.state == BROKEN for check in told):
        words = ["-f", str(file), "--backend", "kubernetes", *(["--context", wish.context] if wish.context else [])]
        again = shlex.join(["evertune", "doctor", *words])
        now.err.lines([[("Nothing was started. Next: mend these; ", ""), (again, "bold"), (" shows all checks", "")]])
        raise Stop(1)


def start(now: Session, manifest: Mapping[str, Any], context: StartContext) -> ExperimentRecord:
    """Bring up the stack of this home, submit, and wait for admission."""
    from evertune import stack
    from evertune.client import Client

    info = stack.ensure_up(now.settings, on_progress=lambda sentence: now.say([(f"{sentence} …", "dim")]))
    now.say(*info.notes)
    now.temporal_address = info.temporal_address

    async def submit(client: Client) -> ExperimentRecord:
        handle = await client.submit(manifest, context=context)
        return await handle.record()

    return now.with_client(submit)


def submitted(now: Session, records: Sequence[ExperimentRecord], output: Form) -> int:
    if not output.for_people:
        documents = [experiment_document(record) for record in records]
        now.out.write(text_of(output, documents[0] if len(documents) == 1 else documents))
        return 0
    for record in records:
        now.out.line([(record.name, "bold"), ("  ", ""), *now.out.marks.state(record.state), ("  submitted", "")])
    now.say("", *next_lines(next_commands(records[-1])))
    return 0


def stay(
    now: Session,
    record: ExperimentRecord,
    *,
    title: str,
    timeout_s: float | None,
    output: Form,
    announce: bool = False,
) -> int:
    """Follow to the end and say what came out."""
    with now.store() as store:
        follower = Follower(store, record.uid, title=title, url=page_url(now, record), you=now.actor())
        try:
            last = follow(now, follower, timeout_s=timeout_s, announce=announce)
        except Detached as detached:
            return say_detached(now, detached)
        failed = []
        if last.record.state is ExperimentState.FAILED:
            states = [state for state in TrialState if state.counts_as_failed]
            failed = store.trials(record.uid, states=states, limit=FAILED_READ)
    if output.for_people:
        lines = summary_lines(last, marks=now.out.marks, failed=failed, width=now.out.width)
        now.out.lines(lines)
        # The page stands on a line of its own: addresses are long, and would push the columns apart.
        page: list[Line] = [[(f"  {follower.url}", "dim")]] if follower.url else []
        now.say("", *next_lines(next_commands(last.record)), *page)
    else:
        now.out.write(text_of(output, experiment_document(last.record)))
    return exit_code(last)


def exit_code(snapshot: Snapshot) -> int:
    return 0 if snapshot.record.state is ExperimentState.SUCCEEDED else 1


def page_url(now: Session, record: ExperimentRecord) -> str | None:
    """The experiment's page in Temporal's web UI, where this home knows one."""
    from evertune import stack

    base = stack.status(now.settings).ui_url
    if not base:
        return None
    return f"{base}/namespaces/{now.settings.temporal_namespace}/workflows/{quote(record.workflow_id, safe='')}"
