"""Classes by name: the built-in ones of a table, third parties' by their entry points.

Used by the registries of algorithms and of early stopping rules. Imports a class when it is asked for, and not before.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from evertune.errors import AlgorithmError, Problem

T = TypeVar("T")


class Plugins(Generic[T]):
    """`built_in`: `module:Class` by name. `noun` and `listed` are for "NAME is not an algorithm; it runs: …"."""

    def __init__(self, group: str, built_in: Mapping[str, str], *, noun: str, listed: str) -> None:
        self._group, self._built_in = group, built_in
        self._noun, self._listed = noun, listed
        self._loaded: dict[str, type[T]] = {}

    @cached_property
    def third_party(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group) if point.name not in self._built_in}

    def forget(self) -> None:
        """Look again at what is installed."""
        self.__dict__.pop("third_party", None)
        self._loaded.clear()

    def names(self) -> tuple[str, ...]:
        """The built-in ones, then third parties'."""
        return (*self._built_in, *sorted(self.third_party))

    def closest(self, name: str) -> str | None:
        """The name that somebody may have meant."""
        close = difflib.get_close_matches(name, self.names(), 1, 0.6)
        return close[0] if close else None

    def get(self, name: str) -> type[T]:
        """The class behind a name. Raises AlgorithmError for one that is not registered or cannot be imported."""
        if name not in self._loaded:
            self._loaded[name] = self._import(name)
        return self._loaded[name]

    def _import(self, name: str) -> type[T]:
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            found: type[T] = getattr(importlib.import_module(module), attribute)
            return found
        if name in self.third_party:
            point = self.third_party[name]
            try:
                loaded: type[T] = point.load()
            except Exception as error:  # whatever a plugin does at import
                message = f"the {self._noun} {name} cannot be imported from {point.value}: {error}"
                raise AlgorithmError(message) from error
            return loaded
        raise AlgorithmError(f"{name} is not an {self._noun}; {self._listed}: {', '.join(self.names())}")

    def checked(self, name: str, path: str, meant: str, check: Callable[[], Sequence[Problem]]) -> Sequence[Problem]:
        """Everything wrong with a name, and what its own `check` says. Raises nothing.

        `path` is where the name stands; `meant` is the name as it is looked for among those that are there.
        """
        if name not in self.names():
            known = f"known: {', '.join(self.names())}"
            close = self.closest(meant)
            hint = f'did you mean "{close}"? {known}' if close else known
            return [Problem(path=path, type="Invalid", message=f'"{name}" is not an {self._noun}', hint=hint)]
        try:
            return check()
        except AlgorithmError as error:
            return [Problem(path=path, type="Invalid", message=error.message)]
        except Exception as error:  # whatever a plugin does; the built-in ones are tested not to
            message = f"{name} cannot check this experiment: {type(error).__name__}: {error}"
            return [Problem(path=path, type="Invalid", message=message)]


def warnings_of(kind: type, path: str, *about: object) -> Sequence[Problem]:
    """What a class warns of by its own `warnings`, if it has that. Refuses nothing, whatever a plugin does."""
    own: Callable[..., Sequence[Problem]] | None = getattr(kind, "warnings", None)
    if own is None:
        return []
    try:
        return own(*about)
    except Exception as error:  # the built-in ones are tested not to
        message = f"what {kind.__name__} warns of is not known: {type(error).__name__}: {error}"
        return [Problem(path=path, type="Invalid", message=message)]
