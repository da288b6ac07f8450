"""The way to a Temporal server that wants TLS: a front with certificates made here, the real server behind it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest

from evertune.connection import connect_temporal, security
from evertune.errors import UnavailableError, UsageError
from evertune.settings import Settings
from tests.workflow.harness import patiently
from tests.workflow.test_gateway import _copy

HOME = {"HOME": "/home/ada"}
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def test_without_any_variable_temporal_is_spoken_to_in_plain_text() -> None:
    assert security(None, {}) == {"tls": False}
    assert security(None, {"TEMPORAL_API_KEY": " ", "TEMPORAL_TLS_SERVER_NAME": ""}) == {"tls": False}


def test_tls_can_be_asked_for_alone() -> None:
    assert security(True, {}) == {"tls": True}


def test_an_api_key_is_sent_over_tls_only() -> None:
    environ = {"TEMPORAL_API_KEY": "k"}
    assert security(None, environ) == {"tls": True, "api_key": "k"}
    assert security(False, environ) == {"tls": False}


def test_a_file_that_cannot_be_read_is_named_with_its_variable() -> None:
    with pytest.raises(UsageError) as caught:
        security(None, {"TEMPORAL_TLS_CLIENT_CERT_PATH": "/nowhere/cert.pem"})
    assert caught.value.message == (
        'TEMPORAL_TLS_CLIENT_CERT_PATH is "/nowhere/cert.pem": the file cannot be read: no such file or directory'
    )


def test_variables_that_exclude_each_other_are_named() -> None:
    with pytest.raises(UsageError, match="TEMPORAL_TLS_CLIENT_CERT_DATA, TEMPORAL_TLS_CLIENT_CERT_PATH"):
        security(None, {"TEMPORAL_TLS_CLIENT_CERT_PATH": "/c", "TEMPORAL_TLS_CLIENT_CERT_DATA": "c"})


def test_the_embedded_server_is_never_asked_for_tls_whatever_is_set_for_others() -> None:
    settings = Settings.load(HOME | {"TEMPORAL_TLS": "true"})
    assert settings.temporal_tls is False
    # What the stack's parent hands to its worker: the same settings, and the address of the server it started.
    child = {"TEMPORAL_TLS": "true", **settings.environment(), "EVERTUNE_TEMPORAL_ADDRESS": "127.0.0.1:7233"}
    assert Settings.load(child).temporal_tls is False


def test_a_configured_server_has_tls_as_its_variable_says() -> None:
    configured = HOME | {"TEMPORAL_ADDRESS": "temporal:7233"}
    assert Settings.load(configured).temporal_tls is None
    assert Settings.load(configured | {"TEMPORAL_TLS": "1"}).temporal_tls is True
    assert Settings.load(configured | {"TEMPORAL_TLS": "1", "EVERTUNE_TEMPORAL_TLS": "FALSE"}).temporal_tls is False
    with pytest.raises(UsageError, match='TEMPORAL_TLS is "maybe": it is true or false'):
        Settings.load(configured | {"TEMPORAL_TLS": "maybe"})


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and server and client certificates that it signed, each with its key."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=a test's authority")
    for name in ("server", "client"):
        (folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{name}.test\n")
        openssl("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}.test")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    return folder


@pytest.fixture
async def guarded(temporal_address: str, certificates: Path) -> AsyncIterator[str]:
    """The address of a front that lets nobody in without a client's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    host, _, port = temporal_address.rpartition(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_copy(reader, back), _copy(there, writer), return_exceptions=True)

    front = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    yield f"127.0.0.1:{front.sockets[0].getsockname()[1]}"
    front.close()


@needs_openssl
async def test_certificates_open_a_server_that_is_closed_without(
    guarded: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH", str(certificates / "ca.pem"))
    monkeypatch.setenv("TEMPORAL_TLS_SERVER_NAME", "server.test")
    with pytest.raises(UnavailableError):
        await connect_temporal(guarded, "default", tls=None)
    monkeypatch.setenv("TEMPORAL_TLS_CLIENT_CERT_PATH", str(certificates / "client.pem"))
    monkeypatch.setenv("TEMPORAL_TLS_CLIENT_KEY_PATH", str(certificates / "client.key"))
    with pytest.raises(UnavailableError):
        await connect_temporal(guarded, "default", tls=False)
    client = await patiently(lambda: connect_temporal(guarded, "default", tls=None))
    info = await client.workflow_service.get_system_info(GetSystemInfoRequest())
    assert info.server_version
