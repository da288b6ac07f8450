"""What an attempt reported through, as plain files again, after it was archived: for `revising`, which reads it anew.

Points that are read anew must get the places (`domain.metrics.place`) that they had. So an archive is unpacked with
every byte where it was - what it has left out is a hole in the file - and a collector's note of where its file began is
given along. Writes to a temporary directory only.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import collectors
import evertune.archive as archive
from evertune.domain.metrics import FIRST_EVENT_FILE, SOURCE, CollectorSpec, place
from evertune.protocols import Sources

Ranges = list[tuple[int, int]]  # half-open


@contextmanager
def readable(sources: Sources) -> Iterator[tuple[Sources, dict[Path, Ranges]]]:
    """The sources of an attempt that has ended, as collectors read them; by file, the bytes that are not kept."""
    with tempfile.TemporaryDirectory(prefix="evertune-reread-") as folder:
        there = Path(folder)
        gaps: dict[Path, Ranges] = {}

        def plain(path: Path | None, name: str) -> Path | None:
            if path is None or path.is_dir() or not archive.archived(path).exists():
                return path
            gaps[there / name] = unpack(path, there / name)
            return there / name

        log = plain(sources.log, "log") or sources.log
        path, reports = plain(sources.path, "file"), plain(sources.reports, "reports")
        printed = plain(sources.printed, "printed")
        scraped = there / collectors.SCRAPED
        with suppress(FileNotFoundError):
            shutil.copyfile(sources.notes / collectors.SCRAPED, scraped)
        for note, file in (
            (collectors.SEEN, path or log),
            (collectors.SEEN_REPORTS, reports),
            (collectors.SEEN_PRINTED, printed),
            (collectors.SEEN_SCRAPED, scraped),
        ):
            if file is not None:
                _take_note(sources.notes / note, there / note, file)
        yield dataclasses.replace(sources, log=log, notes=there, path=path, reports=reports, printed=printed), gaps


def unpack(log: Path, into: Path) -> Ranges:
    """Write the archived `log` to `into`, every byte at its offset; what is not kept, as ranges of offsets."""
    missing: Ranges = []
    end = 0
    with into.open("wb") as file:
        for piece in archive.read(log):
            if piece.gap:
                continue
            if piece.offset > end:
                missing.append((end, piece.offset))
                file.seek(piece.offset - 1)
                file.write(b"\n")  # as it was: an archive is cut at ends of lines
            file.write(piece.data)
            end = piece.end
    return missing


def _take_note(note: Path, to: Path, file: Path) -> None:
    """A collector knows its file by the inode, which is another one now."""
    with suppress(FileNotFoundError, ValueError, TypeError):
        known = json.loads(note.read_text(encoding="ascii"))
        to.write_text(json.dumps({**known, "inode": file.stat().st_ino}), encoding="ascii")


def places_of(wanted: CollectorSpec, sources: Sources, gaps: dict[Path, Ranges]) -> Ranges:
    """Where the points stand that a new reading finds again. All others stay: pushed, rotated away, or left out."""
    if wanted.kind == "TensorFlowEvent":
        return [(place(FIRST_EVENT_FILE, 0), 1 << 63)]
    ranges: Ranges = []
    if wanted.kind in ("StdOut", "File", "Custom", "PrometheusMetric"):
        first = collectors.first_place_left(sources)
        read = sources.path if sources.path is not None else sources.log
        ranges += _without(
            (first, place(SOURCE + 1, 0)), [(first + low, first + high) for low, high in gaps.get(read, ())]
        )
    if sources.printed is not None:
        ranges.append((place(collectors.PRINTED, 0), place(collectors.PRINTED + 1, 0)))
    return ranges


def _without(whole: tuple[int, int], missing: Sequence[tuple[int, int]]) -> Ranges:
    low, end = whole
    kept: Ranges = []
    for gap, goes_on in missing:
        if low < gap:
            kept.append((low, gap))
        low = goes_on
    return [*kept, (low, end)]
