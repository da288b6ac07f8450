"""Settings: what is read from where, and what every bad value is answered with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evertune.errors import EnvironmentProblem, UsageError
from evertune.settings import Settings

HOME = {"HOME": "/home/ada"}


def test_without_any_variable_everything_lives_in_the_home_of_the_user() -> None:
    settings = Settings.load(HOME)
    assert settings.home == Path("/home/ada/.evertune")
    assert settings.database_url == "sqlite:////home/ada/.evertune/evertune.db"
    assert (settings.temporal_address, settings.temporal_namespace) == (None, "default")
    assert (settings.namespace, settings.backend, settings.durability) == ("default", "local", "normal")


def test_every_variable_is_read() -> None:
    settings = Settings.load(
        {
            "EVERTUNE_HOME": "/srv/evertune",
            "EVERTUNE_NAMESPACE": "team-vision",
            "EVERTUNE_DATABASE_URL": "postgresql+psycopg://u:p@db/evertune",
            "EVERTUNE_DURABILITY": "FULL",
            "EVERTUNE_TEMPORAL_ADDRESS": "temporal:7233",
            "EVERTUNE_TEMPORAL_NAMESPACE": "research",
            "EVERTUNE_TEMPORAL_PORT": "7400",
            "EVERTUNE_UI_PORT": "7401",
            "EVERTUNE_UI_URL": "https://temporal.example.com/",
            "EVERTUNE_SERVER_HOST": "0.0.0.0",
            "EVERTUNE_SERVER_PORT": "7402",
            "EVERTUNE_INGEST_URL": "http://gateway:7402/",
            "EVERTUNE_INGEST_KEYS": "b:" + "0b" * 32 + ",a:" + "0a" * 32,
            "EVERTUNE_BACKEND": "kubernetes",
            "EVERTUNE_KUBECONFIG": "/srv/one:/srv/two",
            "EVERTUNE_KUBE_CONTEXT": "lab",
            "EVERTUNE_COLLECTOR_IMAGE": "registry.example.com:5000/team/collector:1.2@sha256:0a",
            "EVERTUNE_COLLECTOR_MODE": "Classic",
            "EVERTUNE_POD_IDENTITY": "account",
            "EVERTUNE_LOG": "json,debug",
            "EVERTUNE_LOG_CAP": "64MiB",
            "EVERTUNE_LOG_RETENTION": "30",
        }
    )
    assert settings == Settings(
        home=Path("/srv/evertune"),
        namespace="team-vision",
        database_url="postgresql+psycopg://u:p@db/evertune",
        durability="full",
        temporal_address="temporal:7233",
        temporal_namespace="research",
        temporal_port=7400,
        ui_port=7401,
        ui_url="https://temporal.example.com",
        server_host="0.0.0.0",
        server_port=7402,
        ingest_url="http://gateway:7402",
        ingest_keys="b:" + "0b" * 32 + ",a:" + "0a" * 32,
        backend="kubernetes",
        kubeconfig="/srv/one:/srv/two",
        kube_context="lab",
        collector_image="registry.example.com:5000/team/collector:1.2@sha256:0a",
        collector_mode="classic",
        pod_identity="account",
        log_level="debug",
        log_format="json",
        log_cap=64 << 20,
        log_retention_days=30.0,
    )


def test_another_process_loads_the_same_settings_from_their_environment() -> None:
    settings = Settings.load(
        HOME,
        temporal_address="10.0.0.1:7233",
        ui_port=9000,
        log_level="warning",
        log_retention_days=0.5,
        ingest_keys="a:" + "0a" * 16,
        kubeconfig="/srv/config",
        kube_context="lab",
        collector_image="collector:2",
        collector_mode="logs",
        pod_identity="account",
    )
    assert Settings.load(settings.environment()) == settings
    assert Settings.load(Settings.load(HOME).environment()) == Settings.load(HOME)


def test_overrides_win_and_none_means_not_given() -> None:
    environ = HOME | {"EVERTUNE_NAMESPACE": "a", "EVERTUNE_LOG": "error"}
    assert Settings.load(environ, namespace="b", log_level="debug").namespace == "b"
    assert Settings.load(environ, namespace=None).namespace == "a"
    assert Settings.load(environ, log_level="debug").log_level == "debug"


def test_our_own_variable_wins_over_temporals() -> None:
    environ = HOME | {"TEMPORAL_ADDRESS": "theirs:7233", "TEMPORAL_NAMESPACE": "theirs"}
    assert Settings.load(environ).temporal_address == "theirs:7233"
    ours = Settings.load(environ | {"EVERTUNE_TEMPORAL_ADDRESS": "ours:7233", "EVERTUNE_TEMPORAL_NAMESPACE": "ours"})
    assert (ours.temporal_address, ours.temporal_namespace) == ("ours:7233", "ours")


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.load(HOME | {"TEMPORAL_ADDRESS": " ", "EVERTUNE_HOME": ""}) == Settings.load(HOME)


def test_a_kubeconfig_is_found_by_processes_that_work_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert Settings.load(HOME | {"KUBECONFIG": "mine::~/theirs"}).kubeconfig == f"{tmp_path}/mine:/home/ada/theirs"
    both = {"KUBECONFIG": "/usual", "EVERTUNE_KUBECONFIG": "/ours"}
    assert Settings.load(HOME | both).kubeconfig == "/ours"


def test_what_a_worker_goes_by_in_clusters_can_be_compared() -> None:
    plain = Settings.load(HOME).told_of_clusters()
    always = {"COLLECTOR_IMAGE", "COLLECTOR_MODE", "POD_IDENTITY", "SERVER_HOST"}
    assert set(plain) == {f"EVERTUNE_{name}" for name in always}
    other = Settings.load(HOME | {"KUBECONFIG": "/usual", "EVERTUNE_UI_PORT": "7401"}).told_of_clusters()
    assert other == {**plain, "EVERTUNE_KUBECONFIG": "/usual"}


def test_inside_a_cluster_the_default_backend_is_kubernetes() -> None:
    inside = HOME | {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert Settings.load(inside).backend == "kubernetes"
    assert Settings.load(inside | {"EVERTUNE_BACKEND": "local"}).backend == "local"


def test_a_relative_home_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.load({"EVERTUNE_HOME": "here"}).home == tmp_path / "here"


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("EVERTUNE_HOME", "/srv/100%", "must not contain"),
        ("EVERTUNE_NAMESPACE", "Team_Vision", "lower-case"),
        ("EVERTUNE_NAMESPACE", "a" * 64, "at most 63"),
        ("EVERTUNE_DATABASE_URL", "evertune.db", "begins with"),
        ("EVERTUNE_DATABASE_URL", "oracle://db/x", "begins with"),
        ("EVERTUNE_DATABASE_URL", "sqlite://", "in memory"),
        ("EVERTUNE_DATABASE_URL", "sqlite:///:memory:", "in memory"),
        ("EVERTUNE_DURABILITY", "none", "one of normal, full"),
        ("TEMPORAL_ADDRESS", "temporal", "host:port"),
        ("TEMPORAL_ADDRESS", "http://temporal:7233", "host:port"),
        ("TEMPORAL_ADDRESS", "temporal:70000", "host:port"),
        ("EVERTUNE_TEMPORAL_NAMESPACE", "a b", "letters"),
        ("EVERTUNE_TEMPORAL_PORT", "80", "from 1024 to 65535"),
        ("EVERTUNE_UI_PORT", "many", "from 1024 to 65535"),
        ("EVERTUNE_UI_URL", "temporal.example.com", "https://"),
        ("EVERTUNE_SERVER_HOST", "http://all", "without a port"),
        ("EVERTUNE_SERVER_PORT", "80", "from 1024 to 65535"),
        ("EVERTUNE_INGEST_URL", "gateway:8090", "https://"),
        ("EVERTUNE_BACKEND", "docker", "one of local, kubernetes"),
        ("EVERTUNE_KUBECONFIG", ":", "names one file"),
        ("EVERTUNE_COLLECTOR_IMAGE", "my collector", "without blanks"),
        ("EVERTUNE_COLLECTOR_MODE", "sidecar", "one of auto, native, classic, logs"),
        ("EVERTUNE_POD_IDENTITY", "pod", "one of token, account"),
        ("EVERTUNE_LOG", "loud", "a level"),
        ("EVERTUNE_LOG_CAP", "12", "at least 1M"),
        ("EVERTUNE_LOG_CAP", "16 apples", "whole number of bytes"),
        ("EVERTUNE_LOG_RETENTION", "0", "greater than 0"),
        ("EVERTUNE_LOG_RETENTION", "nan", "greater than 0"),
        ("EVERTUNE_LOG_RETENTION", "for ever", "leave it out"),
    ],
)
def test_a_bad_value_is_refused_with_its_variable_and_the_rule(variable: str, value: str, rule: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.load(HOME | {variable: value})
    assert variable in caught.value.message
    assert value in caught.value.message
    assert rule in caught.value.message


def test_all_bad_values_are_reported_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        Settings.load(HOME | {"EVERTUNE_UI_PORT": "x", "EVERTUNE_BACKEND": "y", "EVERTUNE_LOG": "z"}, namespace="N")
    for word in ("EVERTUNE_UI_PORT", "EVERTUNE_BACKEND", "EVERTUNE_LOG", "option namespace"):
        assert word in caught.value.message


def test_a_password_is_never_shown() -> None:
    url = "mysql+pymysql://ada:s3cret@db:3306/evertune"
    assert Settings.load(HOME, database_url=url).shown_database_url == "mysql+pymysql://ada:***@db:3306/evertune"
    with pytest.raises(UsageError) as caught:
        Settings.load(HOME, database_url=url.replace("mysql", "oracle"))
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("keys", ["k1:abc", "k1:" + "0a" * 32 + ",k1:" + "0b" * 32, "0a" * 32])
def test_keys_that_cannot_be_used_are_refused_and_keys_are_never_shown(keys: str) -> None:
    with pytest.raises(UsageError, match="EVERTUNE_INGEST_KEYS") as caught:
        Settings.load(HOME | {"EVERTUNE_INGEST_KEYS": keys})
    assert "each secret 16 to 64 bytes" in caught.value.message
    assert "0a0a" not in caught.value.message
    assert "0a0a" not in repr(Settings.load(HOME, ingest_keys="k1:" + "0a" * 32))


def test_an_unknown_override_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="databse_url"):
        Settings.load(HOME, databse_url="sqlite:///x.db")


def test_the_home_id_is_made_once_and_kept(tmp_path: Path) -> None:
    first = Settings.load({"EVERTUNE_HOME": str(tmp_path / "a")}).home_id
    assert len(first) == 32
    assert Settings.load({"EVERTUNE_HOME": str(tmp_path / "a")}).home_id == first
    assert Settings.load({"EVERTUNE_HOME": str(tmp_path / "b")}).home_id != first


def test_processes_that_ask_for_the_home_id_at_once_agree(tmp_path: Path) -> None:
    code = "import sys; from evertune.settings import Settings; sys.stdin.read(); print(Settings.load().home_id)"
    askers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={"EVERTUNE_HOME": str(tmp_path / "new"), "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for asker in askers:  # all have imported by now, or will be late, which is a race as well
        assert asker.stdin is not None
        asker.stdin.close()
        asker.stdin = None
    answers = {asker.communicate(timeout=100)[0].strip() for asker in askers}
    assert len(answers) == 1
    assert len(answers.pop()) == 32


def test_a_damaged_home_id_is_not_replaced_in_silence(tmp_path: Path) -> None:
    (tmp_path / "home_id").write_text("")
    with pytest.raises(EnvironmentProblem, match="is damaged"):
        _ = Settings.load({"EVERTUNE_HOME": str(tmp_path)}).home_id


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for path in ("taken", "taken/below/it"):
        with pytest.raises(EnvironmentProblem) as caught:
            Settings.load({"EVERTUNE_HOME": str(tmp_path / path)}).prepare_home()
        assert f"{tmp_path / 'taken'} is a file" in caught.value.message


def test_a_home_with_a_name_that_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="too long"):
        Settings.load({"EVERTUNE_HOME": str(tmp_path / ("x" * 300))}).prepare_home()


def test_loading_settings_imports_the_standard_library_only() -> None:
    code = (
        "import sys, evertune.settings, evertune.app, evertune.stack, evertune.log;"
        "heavy = {'pydantic', 'temporalio', 'sqlalchemy', 'structlog', 'yaml', 'typer', 'rich', 'numpy', 'hashlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
