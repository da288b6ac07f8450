"""`report` in a trial whose report file somebody reads: what stands in the file, and what never goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.report.programs import beside_a_reader, clean, lines, metrics, run

VALUES = [
    ("0.25", 0.25),
    ("3", 3),
    ("True", 1),
    ("False", 0),
    ("'a=b'", "a=b"),
    ("float('nan')", "nan"),
    ("float('-inf')", "-inf"),
    ("10**30", "1" + "0" * 30),
    ("'\\ud800'", "?"),
    ("__import__('decimal').Decimal('0.5')", 0.5),
    ("__import__('fractions').Fraction(1, 4)", 0.25),
    ("__import__('numpy').float64(0.1)", 0.1),
    ("__import__('numpy').float32(0.5)", 0.5),
    ("__import__('numpy').float32('nan')", "nan"),
    ("__import__('numpy').int64(7)", 7),
    ("__import__('numpy').bool_(True)", 1),
    ("__import__('numpy').array([[2.5]])", 2.5),
    ("__import__('numpy').str_('conv')", "conv"),
]
UNUSABLE = ["[1, 2]", "b'0.5'", "{}", "object()", "1j", "__import__('numpy').zeros(3)", "'x' * 70000"]


def test_a_report_is_one_line_with_its_step_and_time(tmp_path: Path) -> None:
    file = tmp_path / "reports"
    before = float(
        run("print(time.time()); report(loss=0.3, note='text', step=5); report({'a/b': 1})", beside_a_reader(file))[0]
    )
    first, second = lines(file)
    assert (first["metrics"], first["step"]) == ({"loss": 0.3, "note": "text"}, 5)
    assert (second["metrics"], second["step"]) == ({"a/b": 1}, None)
    assert before <= first["time"] <= second["time"]
    assert file.read_bytes().endswith(b"\n")


def test_each_kind_of_value_has_its_form(tmp_path: Path) -> None:
    file = tmp_path / "reports"
    _, err = run("\n".join(f"report(v={source})" for source, _ in VALUES), beside_a_reader(file))
    assert [line["v"] for line in metrics(file)] == [value for _, value in VALUES]
    assert err == ""


@pytest.mark.parametrize("source", UNUSABLE)
def test_a_value_that_is_neither_number_nor_text_costs_itself_only(source: str, tmp_path: Path) -> None:
    file = tmp_path / "reports"
    _, err = run(f"for _ in range(3): report(bad={source}, good=1)", beside_a_reader(file))
    assert metrics(file) == [{"good": 1}] * 3
    assert err.count("\n") == 1
    assert "metric 'bad' is left out" in err


def test_none_is_left_out_with_one_warning(tmp_path: Path) -> None:
    file = tmp_path / "reports"
    _, err = run("report(a=None, b=1); report(c=None)", beside_a_reader(file))
    assert metrics(file) == [{"b": 1}]
    assert err == "evertune: metric 'a' is left out: it is None\n"


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        ("0", 0),
        ("5.0", 5),
        ("__import__('numpy').int32(4)", 4),
        ("-1", -1),
        ("2.5", None),
        ("'x'", None),
        ("2**63", None),
        ("float('nan')", None),
    ],
)
def test_a_step_that_is_no_count_is_left_out_and_the_value_stays(step: str, kept: int | None, tmp_path: Path) -> None:
    file = tmp_path / "reports"
    _, err = run(f"report(loss=1, step={step})", beside_a_reader(file))
    assert [(line["metrics"], line["step"]) for line in lines(file)] == [({"loss": 1}, kept)]
    assert ("is left out: a step is a whole number" in err) is (kept is None)


@pytest.mark.parametrize(
    "call", ["report(1)", "report({1: 2})", "report({'': 1})", "report({'n' * 513: 1})", "report(loss=[])"]
)
def test_a_mistake_is_a_warning_and_only_when_asked_for_an_exception(call: str, tmp_path: Path) -> None:
    file = tmp_path / "reports"
    _, err = run(call, beside_a_reader(file))
    assert err.startswith("evertune: ")
    assert err.count("\n") == 1
    strict = f"report.strict = True\ntry: {call}\nexcept ReportError as problem: print('raised')"
    if call != "report(1)":
        assert run(strict, beside_a_reader(file))[0] == "raised\n"
    assert run(strict.partition("\n")[2], beside_a_reader(file, EVERTUNE_REPORT_STRICT="1"))[0] == "raised\n"


def test_a_report_of_many_metrics_becomes_lines_that_fit_a_request(tmp_path: Path) -> None:
    file = tmp_path / "reports"
    run("report({f'm{i}': 'x' * 1000 for i in range(2000)})", beside_a_reader(file))
    found = file.read_bytes().splitlines()
    assert max(map(len, found)) <= 256 * 1024
    assert sum(len(line) for line in metrics(file)) == 2000


def test_processes_and_threads_write_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "reports"
    program = """
import threading
def work(name):
    for i in range(300): report({name: i}, step=i)
children = []
report(start=1)
for n in range(3):
    pid = os.fork()
    if not pid:
        work(f"child{n}"); os._exit(0)
    children.append(pid)
threads = [threading.Thread(target=work, args=(f"thread{n}",)) for n in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
"""
    run(program, beside_a_reader(file))
    told = [next(iter(line.items())) for line in metrics(file)[1:]]
    for name in [f"{kind}{n}" for kind in ("child", "thread") for n in range(3)]:
        assert [value for metric, value in told if metric == name] == list(range(300))


def test_a_piece_of_a_line_that_a_killed_process_left_costs_no_other_line(tmp_path: Path) -> None:
    file = tmp_path / "reports"
    file.write_bytes(b'{"metrics": {"loss": 1}, "st')
    run("report(loss=2)", beside_a_reader(file))
    assert [line.startswith(b'{"metrics": {"loss": 2}') for line in file.read_bytes().splitlines()] == [False, True]


def test_a_program_that_closes_all_files_does_not_make_us_write_into_its_own(tmp_path: Path) -> None:
    file, own = tmp_path / "reports", tmp_path / "own"
    program = f"report(a=1); os.closerange(3, 100); own = [open({str(own)!r}, 'w') for _ in range(9)]; report(a=2)"
    run(program.replace("own = [", "keep = ["), beside_a_reader(file))
    assert own.read_text() == ""
    assert metrics(file) == [{"a": 1}, {"a": 2}]


def test_a_file_that_somebody_deletes_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "reports"
    run(f"report(a=1); os.unlink({str(file)!r}); report(a=2)", beside_a_reader(file))
    assert metrics(file) == [{"a": 2}]


def test_what_cannot_be_written_waits_in_memory_until_it_can(tmp_path: Path) -> None:
    blocked = tmp_path / "folder"
    blocked.write_text("in the way")
    file = blocked / "reports"
    program = f"""
report(a=1); report(a=2)
os.unlink({str(blocked)!r}); module.REOPEN_S = 0; module._trial().spool._closed_until = 0
report(a=3)
"""
    _, err = run(program, beside_a_reader(file))
    assert metrics(file) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert err == ""


def test_a_full_disk_costs_memory_within_bounds_and_says_what_is_lost(tmp_path: Path) -> None:
    program = "for i in range(12000): report(a=i)\nprint(len(module._trial().spool.queue))"
    out, err = run(program, beside_a_reader(Path("/dev/full")))
    assert out == "10000\n"
    first, last = err.splitlines()
    assert "points are dropped from now on: /dev/full cannot be written" in first
    assert last == "evertune: 12000 points of trial short-1 are lost"


def test_a_report_from_a_signal_handler_in_the_middle_of_reports_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "reports"
    program = """
import signal
fired = 0
def handler(*_):
    global fired
    fired += 1
    report(signal=fired); flush(1)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for i in range(5000): report(loop=i)
signal.setitimer(signal.ITIMER_REAL, 0)
print(fired)
"""
    fired = int(run(program, beside_a_reader(file))[0])
    found = metrics(file)
    assert fired > 3
    assert [line["loop"] for line in found if "loop" in line] == list(range(5000))
    assert len([line for line in found if "signal" in line]) == fired  # one signal may interrupt another's handler


def test_sigterm_kills_the_program_and_no_report(tmp_path: Path) -> None:
    file = tmp_path / "reports"
    run("import signal; report(a=1); signal.raise_signal(signal.SIGTERM)", beside_a_reader(file), code=-15)
    assert metrics(file) == [{"a": 1}]


def test_outside_a_trial_it_does_nothing_and_says_so_once() -> None:
    _, err = run("report(a=1); report(b=2); print(should_stop(), params(), resume_from(), flush())", clean())
    assert err == "evertune: this is not a trial of evertune, so `report` does nothing\n"


def test_a_trial_that_nobody_collects_reports_of_says_that(tmp_path: Path) -> None:
    _, err = run("report(a=1)", {**clean(), "EVERTUNE_TRIAL": "short-1"})
    assert err == "evertune: nobody collects what trial short-1 reports, so `report` does nothing\n"
