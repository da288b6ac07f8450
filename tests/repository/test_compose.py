"""docker-compose.yml and what it refers to fit together. `tests/deploy` runs what it describes, but for the images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import evertune
from evertune.settings import Settings
from tests.repository.checkout import ROOT

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"temporal-schema", "temporal-namespace"}  # end when their work is done
RECIPE = (ROOT / "deploy" / "images" / "worker.Containerfile").read_text()


def parser() -> list[str] | None:
    """The command of a compose that is on this machine."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    plugin = ["docker", "compose"]
    there = shutil.which("docker") and subprocess.run([*plugin, "version"], capture_output=True, check=False)
    return plugin if there and there.returncode == 0 else None


each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
def test_a_service_waits_only_for_services_that_there_are_and_for_what_they_offer(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        else:
            assert (how["condition"], other in ONE_SHOT) == ("service_completed_successfully", True)


@pytest.mark.skipif(parser() is None, reason="no docker-compose is on this machine")
def test_compose_itself_reads_the_file_as_it_is_meant(tmp_path: Path) -> None:
    example = (ROOT / "deploy" / "compose" / "env.example").read_text()
    secrets = dict.fromkeys(re.findall(r"^([A-Z_]+)=$", example, re.MULTILINE), "0a" * 32)
    place = [
        "--project-directory",
        str(ROOT),
        "-f",
        str(ROOT / "docker-compose.yml"),
        "--env-file",
        str(tmp_path / "env"),
    ]
    (tmp_path / "env").touch()  # not the developer's own
    command = [*(parser() or ()), *place, "config"]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **secrets}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)["services"]
    assert set(read) == set(SERVICES)
    for name, service in read.items():
        assert service["image"] == SERVICES[name]["image"]
        assert set(service.get("depends_on", {})) == set(SERVICES[name].get("depends_on", {}))
        assert not re.search(r"(?<!\$)\$\{", str(service.get("environment"))), "a variable was not filled in"
    bare = subprocess.run(
        command, env={name: environment[name] for name in ("PATH", "HOME")}, capture_output=True, check=False, cwd="/"
    )
    assert b"see deploy/compose/env.example" in bare.stderr, "a missing secret must be named"


@each_service
def test_an_image_is_pinned_to_a_version(name: str) -> None:
    assert re.search(r":\d+\.\d+\.\d+$", SERVICES[name]["image"])


@each_service
def test_a_service_that_stays_is_started_again_and_one_that_ends_is_not(name: str) -> None:
    assert SERVICES[name]["restart"] == ("on-failure:6" if name in ONE_SHOT else "unless-stopped")


@each_service
def test_a_mount_is_a_declared_volume_or_a_file_of_the_repository(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / source).is_file()


@each_service
def test_a_port_is_published_on_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_every_declared_volume_is_used() -> None:
    mounted = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}

    assert set(COMPOSE["volumes"]) <= mounted


def test_every_secret_is_in_the_example_and_none_is_in_the_file() -> None:
    example = (ROOT / "deploy" / "compose" / "env.example").read_text()
    wanted = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", TEXT))

    assert wanted == set(re.findall(r"^([A-Z_]+)=$", example, re.MULTILINE))


@pytest.mark.parametrize("service", ["worker", "server"])
def test_settings_are_ones_that_evertune_accepts(service: str) -> None:
    environment = SERVICES[service]["environment"]
    given = {name: re.sub(r"\$\{[^}]*\}", "0a" * 32, value) for name, value in environment.items()}
    understood = Settings.load({"HOME": "/home/evertune", **given}).environment()

    assert {name: understood[name] for name in given} == given


@pytest.mark.parametrize("service", ["worker", "server"])
def test_ours_have_no_right_that_they_do_not_need(service: str) -> None:
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in SERVICES[service]


def test_the_worker_and_the_ui_speak_to_the_server_that_is_there() -> None:
    named = {
        SERVICES["worker"]["environment"]["EVERTUNE_TEMPORAL_ADDRESS"],
        SERVICES["ui"]["environment"]["TEMPORAL_ADDRESS"],
        SERVICES["temporal-namespace"]["environment"]["TEMPORAL_ADDRESS"],
    }

    assert {address.split(":")[0] for address in named} <= set(SERVICES)


def test_whoever_mints_tokens_and_whoever_checks_them_have_one_key_and_one_address() -> None:
    worker, server = (SERVICES[name]["environment"] for name in ("worker", "server"))
    host, port = worker["EVERTUNE_INGEST_URL"].removeprefix("http://").split(":")

    assert re.sub(r":\?[^}]*", "", worker["EVERTUNE_INGEST_KEYS"][3:]) == server["EVERTUNE_INGEST_KEYS"][3:]
    assert host in SERVICES
    assert port in SERVICES[host]["entrypoint"]
    assert worker["EVERTUNE_DATABASE_URL"] == server["EVERTUNE_DATABASE_URL"]


def test_server_and_tools_of_temporal_have_one_version() -> None:
    versions = {SERVICES[name]["image"].split(":")[1] for name in ("temporal", *ONE_SHOT)}

    assert len(versions) == 1


def test_the_worker_image_has_the_version_of_the_package() -> None:
    for service in ("worker", "server"):
        assert SERVICES[service]["image"] == f"evertune/worker:{evertune.__version__}"


def test_the_recipe_copies_what_exists_and_what_the_build_context_lets_in() -> None:
    context = set((ROOT / ".dockerignore").read_text().splitlines())
    copied = [
        name for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", RECIPE, re.MULTILINE) for name in sources.split()
    ]

    assert copied
    assert [name for name in copied if not (ROOT / name).exists() or f"!{name}" not in context] == []


def test_the_worker_does_not_run_as_root_and_installs_by_hash() -> None:
    final = RECIPE.rsplit("\nFROM ", 1)[1]

    assert re.search(r"^USER [1-9]\d*$", final, re.MULTILINE)
    for line in re.findall(r"pip install [^&\n]+", RECIPE):
        assert "--require-hashes" in line or "--no-index" in line
