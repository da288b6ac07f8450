"""`evertune validate -o json` over Katib's own files, as a user calls it: Katib's verdicts and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.spec.samples import EXAMPLES
from tests.unit.spec.test_katib_examples import ALGORITHM, VERDICTS

ROOT = Path(__file__).parents[3]


def _validate(*files: Path, home: Path) -> tuple[int, list[dict[str, Any]]]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EVERTUNE")}
    done = subprocess.run(
        [sys.executable, "-m", "evertune.cli", "validate", "-o", "json", *map(str, files)],
        cwd=home,
        env={**plain, "PYTHONPATH": str(ROOT), "EVERTUNE_HOME": str(home / "home")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_example_gets_katibs_verdict_from_the_command_line(tmp_path: Path) -> None:
    files = sorted(EXAMPLES.rglob("*.yaml"))
    code, verdicts = _validate(*files, home=tmp_path)

    assert code == 2  # one of them is refused by Katib, too
    assert [verdict["file"] for verdict in verdicts] == [str(file) for file in files]
    for verdict in verdicts:
        problems, refused_here = VERDICTS[str(Path(verdict["file"]).relative_to(EXAMPLES).with_suffix(""))]
        assert [(error["type"], error["path"]) for error in verdict["errors"]] == problems
        assert verdict["valid"] == (not problems)
        if verdict["valid"]:
            warned = ALGORITHM in {warning["path"] for warning in verdict["warnings"]}
            assert warned == (ALGORITHM in refused_here)


@pytest.mark.parametrize(
    ("name", "code"),
    [("hp-tuning/cma-es", 0), ("nas/darts-gpu", 0), ("hp-tuning/simple-pbt", 2)],
)
def test_the_exit_code_is_katibs_verdict_and_not_whether_it_runs(name: str, code: int, tmp_path: Path) -> None:
    assert _validate(EXAMPLES / f"{name}.yaml", home=tmp_path)[0] == code


def test_a_configmap_in_the_same_file_serves_as_template(tmp_path: Path) -> None:
    example = (EXAMPLES / "trial-template" / "trial-configmap-source.yaml").read_text()
    file = tmp_path / "both.yaml"
    file.write_text(
        example
        + """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: trial-templates, namespace: kubeflow}
data:
  defaultTrialTemplate.yaml: |
    apiVersion: batch/v1
    kind: Job
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: training-container
              image: mnist
              command: [train, "${trialParameters.learningRate}", "${trialParameters.numberLayers}",
                        "${trialParameters.optimizer}"]
"""
    )
    code, verdicts = _validate(file, home=tmp_path)
    assert [verdict["errors"] for verdict in verdicts] == [[], []]
    assert code == 0
