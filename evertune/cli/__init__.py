"""The command `evertune`. `main` is its entry point: it finds the verb, runs it, and ends with the right exit code.

Verbs are listed in `verbs`, written in `commands`, one file per family; `edge` turns every failure into a sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from evertune.ending import leave

FLAGS = ("-q", "--quiet", "-v", "--verbose", "--no-color")


def main() -> NoReturn:
    leave(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The whole of a command but its end; returns the exit code. Never raises."""
    words, given = _take_flags(arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[0] == "help":
            words = [*words[1:3], "--help"]
        else:
            return _help()
    if words[0] == "--version":
        words = ["version"]
    from evertune.cli.edge import PIPE_CLOSED, report
    from evertune.cli.output.printer import PipeClosedError
    from evertune.cli.session import Session, Stop, enter

    verbosity = sum(word in ("-v", "--verbose") for word in given) - sum(word in ("-q", "--quiet") for word in given)
    session = Session.open(no_color="--no-color" in given, verbosity=verbosity)
    enter(session)
    try:
        if sys.platform == "win32":
            from evertune.errors import EnvironmentProblem

            raise EnvironmentProblem("evertune runs on Linux and macOS", hint="on Windows, use WSL 2")
        return _verb(*_split(words))
    except Stop as stop:
        return stop.code
    except PipeClosedError:
        return PIPE_CLOSED
    except BaseException as error:  # the edge: nothing may leave as a traceback
        try:
            return report(error, session)
        except (PipeClosedError, OSError):
            return PIPE_CLOSED


def command_of(name: str) -> Any:
    """The typer command behind a verb; imports the verb's module."""
    import importlib

    import typer
    import typer.main

    from evertune.cli.verbs import VERBS

    verb = VERBS[name]
    module = importlib.import_module(f"evertune.cli.commands.{verb.module}")
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, context_settings={"help_option_names": ["-h", "--help"]})(getattr(module, verb.function))
    return typer.main.get_command(app)


def _split(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The verb, which may be two words, and its arguments."""
    from evertune.cli.verbs import VERBS

    if " ".join(words[:2]) in VERBS:
        return " ".join(words[:2]), words[2:]
    return words[0], words[1:]


def _verb(name: str, arguments: Sequence[str]) -> int:
    from evertune.cli.edge import close_to, usage_lines
    from evertune.cli.session import session
    from evertune.cli.verbs import USAGE, VERBS

    if name not in VERBS:
        kind = "option" if name.startswith("-") else "command"
        suggestions = [f"evertune {verb}" for verb in close_to(name, list(VERBS))]
        lines = usage_lines("", f'there is no {kind} "{name}"', suggestions, f"{USAGE}; evertune --help lists them")
        session().err.lines(lines)
        return 2
    command = command_of(name)
    import typer

    try:
        result = command.main(args=list(arguments), prog_name=f"evertune {name}", standalone_mode=False)
    except typer.Abort:  # Ctrl-C or Ctrl-D at a question
        session().err.line()
        return 130
    except typer.TyperException as error:
        return _usage(name, error)
    return result if isinstance(result, int) else 0


def _usage(name: str, error: Any) -> int:
    """typer's words for a wrong option or argument, in ours."""
    from evertune.cli.edge import close_to, usage_lines
    from evertune.cli.session import session

    message = error.message.rstrip(".")
    suggestions: list[str] = []
    option = getattr(error, "option_name", None)
    if option is not None and message.startswith("No such option"):
        message = f"there is no option {option}"
        known = list(getattr(error, "possibilities", None) or ())
        if not known and error.ctx is not None:
            options = [word for parameter in error.ctx.command.params for word in parameter.opts if word[:2] == "--"]
            known = close_to(option, options)
        suggestions = sorted(known)
    else:
        message = error.format_message().rstrip(".").replace(": Value error, ", ": ")
        message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    usage = context.get_usage().removeprefix("Usage: ") if context is not None else f"evertune {name} --help"
    session().err.lines(
        usage_lines(name, message, suggestions, " ".join(usage.replace("{", "").replace("}", "").split()))
    )
    return 2


def _take_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags that every verb knows may stand anywhere before `--`; returns (the rest, the flags)."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    before, after = arguments[:end], arguments[end:]
    return [*(word for word in before if word not in FLAGS), *after], [word for word in before if word in FLAGS]


def _help() -> int:
    from evertune.cli.verbs import help_text

    try:
        sys.stdout.write(help_text())
        sys.stdout.flush()
    except BrokenPipeError:
        return 141
    return 0
