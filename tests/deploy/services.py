"""The services of docker-compose.yml as processes of this machine, with the environment, commands and health checks
that the file gives them. Only hosts, ports and paths, which a container has for itself, have others in their place."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.repository.checkout import ROOT
from tests.stack.conftest import processes_of, until

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
RECIPE = (ROOT / "deploy" / "images" / "worker.Containerfile").read_text()
IMAGE_HOME = "/var/lib/evertune"  # a volume there; a folder of the test here
SCRATCH = "/tmp/evertune"  # the server's, within its container


@dataclass
class Container:
    """`name`: of the service. `secrets` is what .env holds; `here` says what stands in for what of the file's texts."""

    name: str
    secrets: Mapping[str, str]
    here: Mapping[str, str]
    home: Path
    log: Path
    started: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        image = dict(re.findall(r"(\w+)=(\S+)", re.findall(r"^ENV (.+)$", RECIPE, re.MULTILINE)[-1]))
        told = {**image, **SERVICES[self.name]["environment"]}
        scripts = sysconfig.get_path("scripts")
        return {**{key: self._filled(value) for key, value in told.items()}, "PATH": f"{scripts}:{os.environ['PATH']}"}

    def _filled(self, text: str) -> str:
        theirs = "|".join(re.escape(one) for one in sorted(self.here, key=len, reverse=True))
        text = re.sub(theirs, lambda found: self.here[found[0]], text)
        return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: self.secrets[found[1]], text)

    def start(self) -> None:
        """As Docker does at first, and after each death."""
        of_image = json.loads(re.findall(r"^ENTRYPOINT (.+)$", RECIPE, re.MULTILINE)[-1])
        entry = SERVICES[self.name].get("entrypoint", of_image)
        command = [sys.executable if word == "python" else self._filled(word) for word in entry]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.home.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started += 1

    @property
    def healthy(self) -> bool:
        test = SERVICES[self.name]["healthcheck"]["test"]
        words = [self._filled(word.replace("$$", "$")) for word in test[1:]]
        command = ["/bin/sh", "-c", *words] if test[0] == "CMD-SHELL" else words
        command = [sys.executable if word == "python" else word for word in command]
        done = subprocess.run(command, env=self.environment, capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    def up(self) -> None:
        """Start, and wait until it is healthy; one that dies at the start is started again."""
        self.start()
        deadline = time.monotonic() + 120
        while not self.healthy:
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")[-4000:]
            if self._process is not None and self._process.poll() is not None:
                self.start()
            time.sleep(0.1)

    def kill(self, *, everything: bool = False) -> None:
        """SIGKILL to the service's process, or to all of the container: with their process 1, trials die as well."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        if everything:
            until(lambda: not self._killed(), 60)

    def _killed(self) -> list[int]:
        left = processes_of(self.home)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return left

    def exec(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`docker compose exec`."""
        return subprocess.run(
            words, env=self.environment, cwd=self.home.parent, capture_output=True, text=True, timeout=90, check=False
        )
