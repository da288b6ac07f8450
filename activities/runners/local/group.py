"""The attempt of a distributed job: its replicas' directories, who has decided, and the one end that follows.

    plan       as for one process, but of the job: its replicas with ports and devices, and the rules for its end
    replicas/  a directory for each replica, with a supervisor of its own; renamed into place once, all at once
    restarts   a line for every time that a replica was run again, where the job limits them together
    verdict    which replica decided and how, before the others are signalled; the first one stands
    exit       written when no replica is left

Called by `runner`, which starts, awaits and signals. Whoever reads these files, after any crash, finds the same end.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from activities.runners.local import paths
from activities.runners.local.attempt import REPLICAS, Attempt
from activities.runners.local.command import Command, prepare
from activities.runners.local.outcome import ExitRecord, Why
from activities.runners.local.replicas import Replica, Replicas
from activities.runners.local.verdict import Ended, Outcome, Rules, Verdict, decide
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd
from evertune.protocols import Launch

AFTER_THE_END = "JobEnded"  # why a replica is stopped once another has decided
Ports = Mapping[tuple[str, int], int]

_WHY = {Outcome.STOPPED: Why.STOP, Outcome.LOST: Why.LOST}


def commands(
    launch: Launch,
    attempt: Attempt,
    job: Replicas,
    ports: Ports,
    inherited: Mapping[str, str],
    devices: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Command]:
    """What each replica executes, by name. LaunchError as for a single process, with the replica in front."""
    found = {}
    for replica in job.members:
        files = replica_files(attempt, replica)
        own = replace(launch, primary_container=replica.container)
        reports = None
        if not replica.primary:
            # Only one replica speaks for the trial: what the others report would be taken for its metrics.
            own = replace(own, ingest_url=None, token=None)
            reports = attempt.directory / REPLICAS / replica.name / "reports"
        manifest = paths.rewrite(job.manifest(replica, ports), launch.shared_paths, files)
        command = prepare(own, manifest, inherited, attempt.directory, reports)
        limited = job.restarts is not None and replica.runs > 1
        command = replace(
            command,
            runs=replica.runs,
            restarts_from=replica.restarts_from,
            shared_restarts=str(attempt.directory / "restarts") if limited else "",
            most_restarts=job.restarts or 0,
        )
        if given := (devices or {}).get(replica.name):
            command = replace(command, environment={**command.environment, "CUDA_VISIBLE_DEVICES": ",".join(given)})
        found[replica.name] = command
    return found


def replica_files(attempt: Attempt, replica: Replica) -> Path:
    """Its own copies of shared paths; the primary's are the attempt's, where the collector looks."""
    return attempt.files if replica.primary else attempt.directory / REPLICAS / replica.name / "files"


@dataclass(frozen=True, slots=True)
class Group:
    attempt: Attempt
    plan: Mapping[str, Any]
    members: Mapping[str, Attempt]

    @classmethod
    def of(cls, attempt: Attempt) -> Group | None:
        """None for what is one process, or is not made yet."""
        members = attempt.replicas
        return cls(attempt, attempt.plan(), members) if members else None

    @staticmethod
    def make(
        attempt: Attempt, launch: Launch, job: Replicas, ports: Ports, devices: Mapping[str, Sequence[str]]
    ) -> None:
        """Under the attempt's lock. Killed before the rename it was never made."""
        plan = {
            "trial": launch.ref.trial_name,
            "kind": job.shape.kind,
            "primary": next(replica.name for replica in job.members if replica.primary),
            "any_suffices": job.any_suffices,
            "replicas": [
                {
                    "name": replica.name,
                    "role": replica.role,
                    "index": replica.index,
                    "port": ports[replica.role, replica.index],
                    "devices": list(devices.get(replica.name) or ()),
                    "needed": replica.needed,
                    "fatal": replica.fatal,
                }
                for replica in job.members
            ],
        }
        # Durable, because without it nobody could tell what the replicas' ends mean.
        attempt.write("plan", json.dumps(plan, ensure_ascii=True, indent=1), durable=True)
        new = attempt.directory / f"{REPLICAS}.new"
        for replica in job.members:
            (new / replica.name).mkdir(mode=0o700, parents=True, exist_ok=True)
        new.rename(attempt.directory / REPLICAS)

    @property
    def ports(self) -> Ports:
        return {(entry["role"], entry["index"]): entry["port"] for entry in self.plan["replicas"]}

    @property
    def devices(self) -> Mapping[str, Sequence[str]]:
        return {entry["name"]: entry["devices"] for entry in self.plan["replicas"]}

    @property
    def rules(self) -> Rules:
        entries = self.plan["replicas"]
        return Rules(
            members=tuple(self.members),
            primary=self.plan["primary"],
            needed=frozenset(entry["name"] for entry in entries if entry["needed"]),
            fatal=frozenset(entry["name"] for entry in entries if entry["fatal"]),
            any_suffices=self.plan["any_suffices"],
        )

    def verdict(self) -> Verdict | None:
        """The one that stands, else what the ends so far amount to."""
        try:
            said = json.loads((self.attempt.directory / "verdict").read_text(encoding="utf-8"))
            return Verdict(Outcome(said["outcome"]), said["by"])
        except FileNotFoundError:
            pass
        ends = {}
        for name, member in self.members.items():
            if (record := member.record()) is not None:
                ends[name] = Ended(record, (member.directory / "exit").stat().st_mtime_ns)
        stop = self.attempt.directory / "stop"
        return decide(self.rules, ends, stop.stat().st_mtime_ns if stop.exists() else None)

    def settle(self, verdict: Verdict) -> Verdict:
        """Make it the one that stands, unless there is one; durable before any replica is signalled for it."""
        name = f"verdict.{os.getpid()}.{threading.get_ident()}"
        self.attempt.write(name, json.dumps({"outcome": verdict.outcome, "by": verdict.by}), durable=True)
        mine = self.attempt.directory / name
        with suppress(FileExistsError):
            os.link(mine, self.attempt.directory / "verdict")
        mine.unlink()
        return self.verdict() or verdict

    def close(self, verdict: Verdict) -> None:
        """No replica is left: from now on the attempt is over."""
        if self.attempt.over():
            return
        record = self.members[self._speaker(verdict)].record()
        status = record.status if record else None
        line = ExitRecord(status, _WHY.get(verdict.outcome, Why.END), 1, f"decided by {verdict.by}").line()
        self.attempt.write("exit", line, durable=False)

    def end(self, verdict: Verdict) -> AttemptEnd:
        """The attempt's end, once every replica has ended."""
        ends = {name: end for name, member in self.members.items() if (end := member.end()) is not None}
        speaker = self._speaker(verdict)
        end = ends[speaker]
        if verdict.outcome is Outcome.STOPPED:
            reason = self.attempt.stop_reason() or end.reason
            end = replace(end, state=AttemptState.KILLED, failure=FailureClass.STOPPED, reason=reason)
        elif verdict.outcome is Outcome.LOST:
            message = f"{speaker}: {end.message or 'nobody saw it end'}"
            end = replace(
                end,
                state=AttemptState.LOST,
                failure=FailureClass.INFRASTRUCTURE,
                reason="Lost",
                message=message if len(self.members) > 1 else end.message,
            )
        elif verdict.outcome is Outcome.FAILED and len(self.members) > 1:
            end = replace(end, reason=f"{speaker}: {end.reason}")
        return replace(
            end,
            started=min((other.started for other in ends.values() if other.started), default=None),
            ended=max((other.ended for other in ends.values() if other.ended), default=None),
        )

    def _speaker(self, verdict: Verdict) -> str:
        """Whose exit status is the job's: the primary's when all went well with it too."""
        primary: str = self.plan["primary"]
        if verdict.outcome is Outcome.SUCCEEDED:
            record = self.members[primary].record()
            return primary if record and record.why is Why.END and record.status == 0 else verdict.by
        return verdict.by
