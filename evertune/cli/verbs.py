"""The table of verbs: where each lives and what it does in a line. `--help` needs nothing else, so it is quick.

A verb's module is imported when the verb is used, and only then: nobody waits for a database to read help.
"""

from __future__ import annotations

from dataclasses import dataclass

USAGE = "evertune VERB [ARGUMENTS]"
TAGLINE = "Hyperparameter tuning and architecture search that cannot be lost."
FLAGS = (
    ("--no-color", "no colours (also NO_COLOR=1)"),
    ("-q, --quiet", "errors only on standard error"),
    ("-v, --verbose", "log what happens; show tracebacks"),
    ("--help", "this page; after a verb, that verb's"),
)


@dataclass(frozen=True)
class Verb:
    name: str
    module: str  # below evertune.cli.commands; the function there has the verb's name
    help: str
    under: tuple[Verb, ...] = ()  # two words, such as `metrics test`; any other word after the first is its argument

    @property
    def function(self) -> str:
        return f"{self.name.replace(' ', '_')}_"


GROUPS: tuple[tuple[str, tuple[Verb, ...]], ...] = (
    (
        "Start",
        (
            Verb("run", "run", "run an experiment from a file and watch it"),
            Verb("tune", "tune", "tune a command without any file"),
            Verb("init", "init", "write an experiment file, commented and valid"),
            Verb("submit", "run", "start an experiment and return at once"),
            Verb("validate", "check", "find everything that is wrong with files"),
            Verb("render", "check", "show the full experiment, or one trial of it"),
            Verb("algorithms", "algorithms", "which there are, and which to take"),
        ),
    ),
    (
        "Look",
        (
            Verb("list", "look", "all experiments"),
            Verb("get", "look", "one experiment"),
            Verb("watch", "run", "follow a running experiment"),
            Verb("trials", "look", "its trials"),
            Verb("best", "best", "its best trial, also as flags, env or python"),
            Verb("logs", "logs", "what trials printed"),
            Verb(
                "metrics",
                "metrics",
                "what trials reported; also: metrics test, metrics reparse",
                under=(
                    Verb("metrics show", "metrics", "the same, for an experiment called test or reparse"),
                    Verb("metrics test", "metrics_try", "what filters find in a file"),
                    Verb("metrics reparse", "reparse", "read the logs of finished trials again"),
                ),
            ),
            Verb("explain", "explain", "why it is in its state, and what moves it"),
        ),
    ),
    (
        "Change",
        (
            Verb("pause", "change", "start nothing new"),
            Verb("resume", "change", "go on"),
            Verb("stop", "change", "let running trials finish, then end"),
            Verb("cancel", "change", "end now"),
            Verb("edit", "change", "parallelism, budgets, goal"),
            Verb("extend", "change", "more trials, also after the end"),
            Verb("delete", "delete", "remove an experiment and all it left"),
        ),
    ),
    (
        "Operate",
        (
            Verb("up", "stack", "start Temporal, worker and server of this home"),
            Verb("down", "stack", "stop them, and local trials"),
            Verb("worker", "stack", "a worker in the foreground"),
            Verb("server", "stack", "the HTTP server in the foreground"),
            Verb("operator", "stack", "kubectl's door: Experiments of a cluster, in the foreground"),
            Verb("doctor", "doctor", "check this installation"),
            Verb("manifest", "manifest", "the rights that a worker needs in a cluster"),
            Verb("replay", "replay", "recompute suggestions from the record"),
            Verb("version", "stack", "what this is"),
        ),
    ),
)
VERBS: dict[str, Verb] = {verb.name: verb for _, verbs in GROUPS for first in verbs for verb in (first, *first.under)}


def help_text() -> str:
    lines = [TAGLINE, "", f"  {USAGE}", ""]
    for title, verbs in GROUPS:
        lines += [title, *(f"  {verb.name:<11}{verb.help}" for verb in verbs), ""]
    lines += ["Everywhere", *(f"  {flag:<15}{text}" for flag, text in FLAGS), ""]
    lines += ["Try it: evertune run examples/digits.yaml"]
    return "\n".join(lines) + "\n"
