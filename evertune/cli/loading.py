"""Files to checked experiments, for `run`, `submit`, `validate` and `render`. Reads; never starts anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evertune.cli.session import Session, Stop
from evertune.errors import EnvironmentProblem, Problem, UsageError

if TYPE_CHECKING:
    from evertune.contracts import StartContext
    from evertune.spec import Document, Experiment, Templates, Verdict

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")
RECORDED = ("PATH", "VIRTUAL_ENV", "CONDA_PREFIX")


def read_source(path: Path | str) -> bytes:
    """The bytes of a file, or of standard input for `-`. UsageError says in one sentence why not.

    One byte more than a document may have is all that is read: a device or a pipe may have no end.
    """
    from evertune.spec.document import MAX_BYTES

    if str(path) == STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    file = Path(path)
    try:
        if file.is_dir():
            raise UsageError(f"{file} is a directory", hint=_files_in(file))
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"there is no file {file}", hint=_similar(file)) from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {(error.strerror or str(error)).lower()}") from error


def documents_of(path: Path | str) -> list[Document]:
    """All documents of a file; what cannot be read becomes a document that says so."""
    from evertune import spec

    try:
        return spec.parse_documents(read_source(path), str(path))
    except UsageError as error:
        problem = Problem(path="", type="NotFound", message=error.message, hint=error.hint)
        return [spec.Document(source=str(path), problems=[problem])]


def expand_directories(paths: Sequence[Path]) -> list[Path]:
    """A directory stands for the YAML and JSON files below it that hold experiments, or are broken."""
    found: list[Path] = []
    for path in paths:
        if str(path) != STDIN and path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
            inside = [file for file in inside if any(map(_may_be_experiment, documents_of(file)))]
            if not inside:
                raise UsageError(f"{path} holds no experiment")
            found += inside
        else:
            found.append(path)
    return found


def _may_be_experiment(document: Document) -> bool:
    data = document.data
    if document.problems or not isinstance(data, dict):
        return bool(document.problems)
    return data.get("kind") == "Experiment" or ("kind" not in data and ("command" in data or "parameters" in data))


def catalog() -> Any:
    """The algorithm registry, for validation. Imports no numeric library."""
    from evertune.app import activate

    activate()
    from algorithms.registry import Registry

    return Registry()


def known_backend(session: Session, option: str | None) -> str | None:
    """Where the trials will run, as far as anybody said so: only then are warnings given that matter there.

    Local is what nobody said; a file that is checked at a desk may still be meant for a cluster.
    """
    return option or ("kubernetes" if session.settings.backend == "kubernetes" else None)


@dataclass(frozen=True)
class Loaded:
    """A manifest that may be started, and the template of its trials where that stands in a ConfigMap beside it."""

    manifest: dict[str, Any]
    templates: Sequence[Mapping[str, str]] = ()

    def within(self, context: StartContext) -> StartContext:
        """The context that this experiment starts with: its template goes along."""
        from evertune.contracts import TemplateText

        texts = [TemplateText.model_validate(template) for template in self.templates]
        return context.model_copy(update={"templates": texts})


def config_maps(files: Sequence[Path] | None) -> Templates | None:
    """The texts in the ConfigMaps of these files; None without files. UsageError where there are none in one."""
    from evertune import spec

    if not files:
        return None
    found: dict[spec.TemplateKey, str] = {}
    for file in files:
        documents = spec.parse_documents(read_source(file), str(file))
        broken = next((problem for document in documents for problem in document.problems), None)
        if broken is not None:
            raise UsageError(f"{file} cannot be read: {broken.message}", hint=broken.hint)
        texts = spec.templates_of(documents)
        if not texts:
            hint = "kubectl get configmap NAME -n NAMESPACE -o yaml writes one"
            raise UsageError(f"{file} holds no ConfigMap with templates", hint=hint)
        found |= texts
    return found


def load_for_start(
    session: Session,
    path: Path,
    *,
    namespace: str | None,
    name: str | None,
    backend: str | None,
    several: bool = False,
    configmaps: Sequence[Path] | None = None,
) -> list[Loaded]:
    """The manifests of a file, checked for this machine; prints every problem and ends with 2 when there are any."""
    from evertune import spec

    documents = spec.parse_documents(read_source(path), str(path))
    experiments = [document for document in documents if not _is_config_map(document)]
    if not several and len(experiments) > 1:
        names = ", ".join(filter(None, (_name_in(document) for document in experiments)))
        raise UsageError(
            f"{path} holds {len(experiments)} experiments ({names}); run takes one", hint=f"evertune submit {path}"
        )
    if name is not None and len(experiments) > 1:
        raise UsageError("--name needs a file with one experiment")
    for document in experiments:
        _place(document, session, namespace, name)
    known = catalog()
    given = config_maps(configmaps)
    verdicts = spec.check_all(documents, known, templates=given, backend=known_backend(session, backend))
    templates = {**(given or {}), **spec.templates_of(documents)}
    chosen = backend or session.settings.backend
    for verdict in verdicts:
        if verdict.experiment is not None:
            where = spec.backend_of(verdict.experiment) or chosen
            unsupported = spec.unsupported_here(verdict.experiment, where, templates=templates)
            said = {problem.message for problem in unsupported}
            verdict.warnings[:] = [warning for warning in verdict.warnings if warning.message not in said]
            verdict.problems.extend(located(problem, verdict.document) for problem in unsupported)
    if any(verdict.problems for verdict in verdicts):
        say_verdicts(session, [verdict for verdict in verdicts if verdict.problems])
        raise Stop(2)
    say_warnings(session, verdicts)
    found = [
        Loaded(_manifest(verdict.experiment, verdict.document), _used(verdict.experiment, templates))
        for verdict in verdicts
        if verdict.experiment is not None
    ]
    if not found:
        raise UsageError(f"{path} holds no Experiment", hint=f"evertune validate {path}")
    return found


def _manifest(experiment: Experiment, document: Document) -> dict[str, Any]:
    """The full manifest. Katib's default resumePolicy stays out: only a Never that somebody wrote forbids to extend."""
    manifest = experiment.manifest()
    data = document.data if isinstance(document.data, dict) else {}
    spec = data.get("spec")
    if "resumePolicy" not in (spec if isinstance(spec, dict) else data):
        manifest["spec"].pop("resumePolicy", None)
    return manifest


def _used(experiment: Experiment, templates: Templates) -> list[dict[str, str]]:
    from evertune import spec

    template = experiment.spec.trial_template if experiment.spec else None
    if template is None or template.config_map is None:
        return []
    namespace, name, key = spec.template_key(template.config_map)
    text = templates.get((namespace, name, key))
    return [{"namespace": namespace, "name": name, "key": key, "text": text}] if isinstance(text, str) else []


def located(problem: Problem, document: Document) -> Problem:
    """With its line, where the document has one."""
    import dataclasses

    place = document.locate(problem.path)
    return problem if place is None else dataclasses.replace(problem, line=place.line, column=place.column)


def the_one(
    session: Session, file: Path, verb: str, configmaps: Sequence[Path] | None = None
) -> tuple[Experiment, Templates]:
    """The one experiment of a file, and the templates in the ConfigMaps at hand; Stop(2) when it has problems."""
    from evertune import spec

    documents = spec.parse_documents(read_source(file), str(file))
    given = config_maps(configmaps)
    verdicts = spec.check_all(documents, catalog(), templates=given)
    if any(verdict.problems for verdict in verdicts):
        say_verdicts(session, [verdict for verdict in verdicts if verdict.problems])
        raise Stop(2)
    found = [verdict.experiment for verdict in verdicts if verdict.experiment is not None]
    if len(found) != 1:
        raise UsageError(f"{file} holds {len(found)} experiments; {verb} takes one")
    return found[0], {**(given or {}), **spec.templates_of(documents)}


def say_verdicts(session: Session, verdicts: Sequence[Verdict]) -> None:
    from evertune.spec.report import report_lines

    for verdict in verdicts:
        session.err.lines(report_lines(verdict, width=session.err.width or 100))


def say_warnings(session: Session, verdicts: Sequence[Verdict]) -> None:
    """Short, on the way to something else: one line each, and the mend below it."""
    for verdict in verdicts:
        for warning in verdict.warnings:
            place = f"{verdict.document.source}:{warning.line}" if warning.line else verdict.document.source
            session.say([("warning", "warning"), (f": {place}: {warning.path}: {warning.message}", "")])
            if warning.hint:
                session.say([(f"  {warning.hint}", "mend")])


def _place(document: Document, session: Session, namespace: str | None, name: str | None) -> None:
    """Put --name and --namespace into the document; the file's own namespace must not say otherwise."""
    data = document.data
    if not isinstance(data, dict):
        return
    where = data if "metadata" not in data and "spec" not in data else data.setdefault("metadata", {})
    if not isinstance(where, dict):
        return
    if name is not None:
        where["name"] = name
        where.pop("generateName", None)
    said = where.get("namespace")
    if said in (None, ""):
        if (wanted := session.namespace(namespace)) != "default" or namespace:
            where["namespace"] = wanted
    elif namespace is not None and said != namespace:
        raise UsageError(
            f'{document.source} says namespace "{said}", but -n says "{namespace}"', hint="leave out one of the two"
        )


def _is_config_map(document: Document) -> bool:
    return isinstance(document.data, dict) and document.data.get("kind") == "ConfigMap"


def _name_in(document: Document) -> str:
    data = document.data if isinstance(document.data, dict) else {}
    metadata = data.get("metadata")
    return str((metadata if isinstance(metadata, dict) else data).get("name", ""))


def start_context(
    session: Session, *, backend: str | None, images: Path | None, image_roots: Sequence[str]
) -> StartContext:
    """Where and as whom the trials run: this directory, PATH and virtual environment."""
    from evertune.contracts import StartContext

    if backend not in (None, "local", "kubernetes"):
        raise UsageError(f'--backend is "{backend}": it must be local or kubernetes')
    try:
        directory = str(Path.cwd())
    except OSError as error:
        raise UsageError(f"the current directory cannot be used: {(error.strerror or '').lower()}") from error
    return StartContext(
        working_dir=directory,
        environment={name: session.environ[name] for name in RECORDED if session.environ.get(name)},
        image_roots=roots_of_images(images, image_roots),
        backend=backend,  # type: ignore[arg-type]  # checked above
        actor=session.actor(),
    )


def roots_of_images(images: Path | None, image_roots: Sequence[str]) -> dict[str, str]:
    """Image name to absolute directory; relative ones in a file are relative to that file."""
    roots: dict[str, str] = {}
    if images is not None:
        from evertune import spec

        document = spec.parse_documents(read_source(images), str(images))[0]
        data = document.data
        if document.problems or not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
            raise UsageError(f"{images} must be a YAML map of image name to directory")
        roots |= {image: _directory(images.parent / root, f"{images}: {image}") for image, root in data.items()}
    for entry in image_roots:
        image, equals, root = entry.partition("=")
        if not equals or not image or not root:
            raise UsageError(f'--image-root is "{entry}": write IMAGE=DIR')
        roots[image] = _directory(Path(root), f"--image-root {image}")
    return roots


def _directory(path: Path, where: str) -> str:
    path = path.expanduser()
    if not path.is_dir():
        raise UsageError(f"{where}: there is no directory {path}")
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links and hide what the user wrote


def write_new(path: Path, text: str, *, force: bool) -> None:
    """Write a file that must not exist, unless `force`."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists", hint="give another name, or --force") from None
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error


def _files_in(directory: Path) -> str | None:
    """A directory's experiments, for the hint."""
    try:
        names = sorted(str(file) for file in directory.iterdir() if file.suffix in SUFFIXES)
    except OSError:
        return None
    return f"give one file of it, as {names[0]}" if names else None


def _similar(file: Path) -> str | None:
    import difflib

    try:
        names = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
    except OSError:
        return None
    close = difflib.get_close_matches(file.name, names, n=1)
    return f"did you mean {file.parent / close[0]}?" if close else None
