"""The local backend: trials as processes of this machine. `runner` says how, `supervisor.sh` is the process side."""

from __future__ import annotations

from activities.runners.local.runner import LocalRunner

__all__ = ["LocalRunner"]
