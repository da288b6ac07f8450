"""The PrometheusMetric collector: asks the running trial for its metrics. Made by `collectors.create`.

Every EVERY_S seconds the wanted samples of `http://<trial>:<port><path>` go to a spool file, a line a scrape, in the
form of pushed reports. The spool is read like any other file, so a point's place is its place in the spool, and a
restart gives the same points. What counts:

- A sample whose name is a wanted metric, exactly (`loss_total` is not `loss`), and that has no labels, or is the only
  one of that name. Where there are several label sets, write the one that is meant as the metric's name:
  `loss{phase="val"}`; the order of labels does not matter. Otherwise none counts, with a warning.
- A sample that says the same as at the last scrape is not stored again, unless it carries a timestamp of its own that
  has changed: a gauge that stands still between two epochs is one point. The time of a sample is its own, else ours.

An endpoint that is away, slow (TIMEOUT_S in all), longer than SIZE_LIMIT or not in Prometheus' format costs that
scrape.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from collectors.json_lines import ReportLines
from collectors.lines import FileCollector
from collectors.tail import Tail, end_of
from collectors.warnings import Warnings
from evertune.domain.metrics import CollectorSpec, Point, Scrape
from evertune.errors import LaunchError
from evertune.protocols import Findings

EVERY_S = 1.0
TIMEOUT_S = 2.0
LAST_TRY_S = 0.3  # after the trial's end its endpoint is usually gone
SIZE_LIMIT = 10 << 20
NAMES_SHOWN = 50

_NAME = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\})?\s*\Z", re.DOTALL)
_LINE_NAME = re.compile(rb"[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)")


class _Wanted(NamedTuple):
    metric: str
    name: str
    labels: Mapping[str, str] | None  # None: whichever is the only one


class _Sample(NamedTuple):
    name: str
    labels: Mapping[str, str]
    text: str
    timestamp: float | None


class PrometheusCollector:
    def __init__(self, spec: CollectorSpec, host: str, *, spool: Path, notes: Path) -> None:
        """`spool`: the file of what was scraped; `notes`: what was read of it.

        LaunchError without a port to ask, or for a metric that cannot be a sample's name.
        """
        if spec.scrape is None:
            raise LaunchError("the collector PrometheusMetric needs source.httpGet with a port")
        self._scrape: Scrape = spec.scrape
        self._host = spec.scrape.host or host
        self._wanted = [_wanted(metric) for metric in spec.metrics]
        self._names = {wanted.name.encode() for wanted in self._wanted}
        self._warnings = Warnings()
        self._spool = spool
        rules = ReportLines(spec.metrics, self._warnings)
        self._points = FileCollector(Tail(spool, notes), rules)
        self._said: dict[str, tuple[str, float]] = {}  # metric -> its last value, and when
        self._recalled = False
        self._seen: dict[str, None] = {}
        self._answered = False
        self._failure = ""
        self._due = 0.0  # monotonic

    def has_more(self) -> bool:
        return time.monotonic() >= self._due or self._points.has_more()

    def read(self) -> Sequence[Point]:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + EVERY_S
            self._ask(TIMEOUT_S)
        return self._points.read()

    def finish(self) -> Sequence[Point]:
        if self._answered:  # else it may be another trial that answers now: this one is read again, long after its end
            self._ask(LAST_TRY_S)
        return self._points.finish()

    def warnings(self) -> tuple[str, ...]:
        return self._warnings.sentences()

    def findings(self) -> Findings:
        spooled = self._points.findings()
        if not self._answered and not spooled.names_seen:
            self._warnings.say(f"{self._url} never answered: {self._failure or 'it was not asked'}")
        names = dict.fromkeys((*spooled.names_seen, *self._seen))
        return Findings(names_seen=tuple(names)[:NAMES_SHOWN], warnings=self._warnings.sentences())

    # ----------------------------------------------------------------------------------------------- one scrape

    @property
    def _url(self) -> str:
        return f"{self._scrape.scheme.lower()}://{self._host}:{self._scrape.port}{self._scrape.path}"

    def _ask(self, timeout_s: float) -> None:
        self._recall()
        try:
            text = self._fetch(timeout_s)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._failure = str(error) or type(error).__name__
            return
        self._answered = True
        now = time.time()
        lines: dict[float, dict[str, str]] = {}
        for wanted, sample in self._chosen(self._samples(text)):
            before, moment = self._said.get(wanted.metric, ("", 0.0))
            if sample.text == before and sample.timestamp in (None, moment):
                continue
            moment = now if sample.timestamp is None else sample.timestamp
            self._said[wanted.metric] = (sample.text, moment)
            lines.setdefault(moment, {})[wanted.metric] = sample.text
        if lines:
            self._append(lines)

    def _fetch(self, timeout_s: float) -> bytes:
        """The answer's text. OSError, HTTPException or ValueError when there is none that can be used."""
        connection = self._connection(timeout_s)
        late = threading.Event()

        def give_up() -> None:  # the timeout of a socket is that of one packet: a slow drip would hold us for ever
            late.set()
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(timeout_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            headers = {"Accept": "text/plain; version=0.0.4", "Accept-Encoding": "identity"}
            connection.request("GET", self._scrape.path, headers={**headers, **dict(self._scrape.headers)})
            answer = connection.getresponse()
            if answer.status != 200:
                raise ValueError(f"it answers with status {answer.status}")
            if answer.getheader("Content-Encoding", "identity") != "identity":
                raise ValueError("its answer is compressed")
            text = answer.read(SIZE_LIMIT + 1)
            if len(text) > SIZE_LIMIT:
                raise ValueError(f"its answer is longer than {SIZE_LIMIT >> 20} MB")
            if late.is_set():
                raise TimeoutError("it takes too long to answer")
            return text
        finally:
            timer.cancel()
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._scrape.scheme.upper() != "HTTPS":
            return http.client.HTTPConnection(self._host, self._scrape.port, timeout=timeout_s)
        context = ssl.create_default_context()
        context.check_hostname = False  # as Kubernetes' own HTTPS probes: a trial has no certified name
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(self._host, self._scrape.port, timeout=timeout_s, context=context)

    def _samples(self, text: bytes) -> list[_Sample]:
        """The samples of wanted names. Only their lines are parsed: a large answer costs a glance at each line."""
        from prometheus_client.parser import text_string_to_metric_families

        found: list[_Sample] = []
        for line in text.splitlines():
            match = _LINE_NAME.match(line)
            if match is None:
                continue
            name = match.group(1)
            if len(self._seen) < NAMES_SHOWN:
                self._seen.setdefault(name.decode())
            if name not in self._names:
                continue
            try:
                for family in text_string_to_metric_families(line.decode("utf-8", "replace") + "\n"):
                    for sample in family.samples:
                        moment = None if sample.timestamp is None else float(sample.timestamp)
                        found.append(_Sample(sample.name, sample.labels, repr(float(sample.value)), moment))
            except (ValueError, KeyError, IndexError):
                self._warnings.say(f"{self._url} answers with lines that are not in Prometheus' text format")
        return found

    def _chosen(self, samples: Sequence[_Sample]) -> list[tuple[_Wanted, _Sample]]:
        chosen: list[tuple[_Wanted, _Sample]] = []
        for wanted in self._wanted:
            named = [sample for sample in samples if sample.name == wanted.name]
            if wanted.labels is None:
                fitting = [sample for sample in named if not sample.labels] or named
            else:
                fitting = [sample for sample in named if sample.labels == wanted.labels]
            if len({tuple(sorted(sample.labels.items())) for sample in fitting}) == 1:
                chosen.append((wanted, fitting[-1]))
            elif fitting:
                example = ",".join(f'{key}="{value}"' for key, value in fitting[0].labels.items())
                self._warnings.say(
                    f"{wanted.metric} has {len(fitting)} label sets and none was taken; "
                    f"name one as the metric: {wanted.name}{{{example}}}"
                )
        return chosen

    # ------------------------------------------------------------------------------------------------ the spool

    def _append(self, lines: Mapping[float, Mapping[str, str]]) -> None:
        text = "".join(json.dumps({"metrics": metrics, "time": moment}) + "\n" for moment, metrics in lines.items())
        torn = end_of(self._spool, 1) not in (b"", b"\n")  # whoever wrote was killed
        with self._spool.open("ab", buffering=0) as spool:
            spool.write((b"\n" if torn else b"") + text.encode())

    def _recall(self) -> None:
        """After a restart: what was scraped last, so that the same is not stored again."""
        if self._recalled:
            return
        self._recalled = True
        for line in end_of(self._spool, 1 << 16).split(b"\n"):
            try:
                entry = json.loads(line)
                said = {metric: (text, float(entry["time"])) for metric, text in entry["metrics"].items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            self._said |= said


def _wanted(metric: str) -> _Wanted:
    match = _NAME.match(metric)
    if match is None:
        raise LaunchError(
            f"{metric!r} cannot be the name of a sample in Prometheus' format",
            'write name or name{label="value"}',
        )
    name, labels = match.groups()
    if labels is None:
        return _Wanted(metric, name, None)
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(f"{name}{{{labels}}} 1\n"))
        return _Wanted(metric, name, dict(families[0].samples[0].labels))
    except (ValueError, IndexError, KeyError):
        raise LaunchError(f"the labels of {metric!r} are not readable", 'write name{label="value"}') from None
