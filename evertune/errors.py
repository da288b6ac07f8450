"""Every error evertune raises on purpose, and what the system does with it.

    EvertuneError                    exit code, retryable?
    ├── UsageError                   2   the command line or a call is wrong
    ├── SpecError                    2   the Experiment breaks rules; carries every Problem at once
    ├── NameTakenError               2   (namespace, name) belongs to another experiment
    ├── NotFoundError                3   no such experiment or trial
    ├── ConflictError                2   the experiment is not in a state that allows this
    ├── AlgorithmError               1   an algorithm broke its contract; the experiment fails with this reason
    ├── LaunchError                  1   an attempt cannot be started as written; counts as a configuration error
    ├── EnvironmentProblem           1   home, disk, port or file that evertune itself needs is unusable; retried
    ├── SchemaTooNewError            2   the database was written by a newer evertune
    └── UnavailableError             4   a server cannot be reached; retried, nothing is lost
        └── WrongDatabaseError       4   this worker has another database than the experiment's

The CLI turns each into one sentence and the exit code above; `activities.errors` turns each into a Temporal
ApplicationError. Anything that is not an EvertuneError is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

ProblemType = Literal["Required", "Invalid", "Forbidden", "NotFound", "Duplicate", "Parse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One broken rule in an Experiment: where, which rule, and the mend. Warnings, which break none, look the same.

    `path` is Katib's field path (`spec.parameters[0].feasibleSpace.min`), `type` its error class.
    `line` and `column` count from 1 and are None when the document has no text (JSON from an API).
    """

    path: str
    type: ProblemType
    message: str
    hint: str | None = None
    line: int | None = None
    column: int | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Problem:
        """Back from `as_dict`, of whatever version."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "type": self.type,
            "message": self.message,
            "hint": self.hint,
            "line": self.line,
            "column": self.column,
        }

    def __str__(self) -> str:
        place = f" (line {self.line})" if self.line is not None else ""
        mend = f"; {self.hint}" if self.hint else ""
        return f"{self.path}{place}: {self.message}{mend}"


@dataclass
class EvertuneError(Exception):
    """Base of all errors that a user can read. `hint` is the mend or the next command."""

    message: str
    hint: str | None = None

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class UsageError(EvertuneError):
    exit_code = 2


@dataclass
class SpecError(EvertuneError):
    """The Experiment breaks rules. `problems` holds all of them, in file order."""

    problems: Sequence[Problem] = field(default_factory=tuple)
    exit_code: ClassVar[int] = 2

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> SpecError:
        count = len(problems)
        text = "; ".join(str(problem) for problem in problems[:3])
        more = f" (and {count - 3} more)" if count > 3 else ""
        return cls(message=f"{count} problem{'s' * (count != 1)}: {text}{more}", problems=tuple(problems))


class NameTakenError(EvertuneError):
    exit_code = 2


class NotFoundError(EvertuneError):
    exit_code = 3


class ConflictError(EvertuneError):
    exit_code = 2


class AlgorithmError(EvertuneError):
    pass


class LaunchError(EvertuneError):
    pass


class EnvironmentProblem(EvertuneError):
    retryable = True  # a full disk must cost an experiment time, not its trials


class SchemaTooNewError(EvertuneError):
    exit_code = 2


class UnavailableError(EvertuneError):
    exit_code = 4
    retryable = True


class WrongDatabaseError(UnavailableError):
    pass
