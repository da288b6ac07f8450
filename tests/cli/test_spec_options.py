"""Options that hand in ConfigMaps, and those of tune and init that stand for fields of the spec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from evertune.cli.loading import load_for_start
from evertune.cli.session import session
from tests.cli.conftest import Shell

CORRECTED = Path(__file__).parents[2] / "examples" / "katib" / "corrected" / "trial-configmap-source.yaml"
PARAMS = ("-p", "opt=[sgd,adam]", "-p", "momentum=uniform(0,1) if opt=sgd", "--minimize", "loss")
COMMAND = ("--command", "train --opt {opt} --momentum {momentum}")


@pytest.fixture
def apart(tmp_path: Path) -> tuple[str, str]:
    """An experiment and the ConfigMap of its template, in two files."""
    _, experiment, template = CORRECTED.read_text().split("---\n")
    files = tmp_path / "experiment.yaml", tmp_path / "templates.yaml"
    files[0].write_text(experiment.replace("algorithmName: cmaes", "algorithmName: random"))
    files[1].write_text(template)
    return str(files[0]), str(files[1])


def test_a_template_that_is_not_at_hand_is_said_to_be_unchecked(shell: Shell, apart: tuple[str, str]) -> None:
    code, out, _ = shell("validate", apart[0])
    assert code == 0
    assert "not checked: the template is in the ConfigMap kubeflow/trial-templates" in out
    code, out, _ = shell("validate", apart[0], "--configmap", apart[1])
    assert (code, "not checked" in out) == (0, False)


def test_a_configmap_from_a_file_is_judged(shell: Shell, apart: tuple[str, str]) -> None:
    template = Path(apart[1])
    template.write_text(template.read_text().replace("trialParameters.momentum", "trialParameters.momentun"))
    code, out, _ = shell("validate", apart[0], "--configmap", apart[1], "-o", "json")
    assert code == 2
    (problem,) = json.loads(out)[0]["errors"]
    assert problem["path"] == "spec.trialTemplate.trialParameters[1].name"


def test_a_trial_renders_from_a_configmap_in_a_file(shell: Shell, apart: tuple[str, str]) -> None:
    code, _, err = shell("render", apart[0], "--trial", "0")
    assert (code, "--configmap FILE" in err) == (2, True)
    trial = yaml.safe_load(shell("render", apart[0], "--trial", "0", "--configmap", apart[1])[1])
    assert trial["spec"]["template"]["spec"]["containers"][0]["command"][-1].startswith("--momentum=0.")


def test_what_starts_takes_the_template_along(shell: Shell, apart: tuple[str, str]) -> None:
    shell("validate", apart[0])
    (loaded,) = load_for_start(
        session(), Path(apart[0]), namespace=None, name=None, backend=None, configmaps=[Path(apart[1])]
    )
    (template,) = loaded.templates
    assert (template["namespace"], template["name"]) == ("kubeflow", "trial-templates")
    assert "mnist.py" in template["text"]


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_what_cannot_start_without_its_template_says_how_to_hand_it_in(
    shell: Shell, apart: tuple[str, str], verb: str
) -> None:
    code, _, err = shell(verb, apart[0])
    assert code == 2
    assert "--configmap FILE" in err


def test_a_file_without_configmaps_is_refused(shell: Shell, apart: tuple[str, str], tmp_path: Path) -> None:
    code, _, err = shell("validate", apart[0], "--configmap", apart[0])
    assert (code, "holds no ConfigMap with templates" in err) == (2, True)
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    code, _, err = shell("validate", apart[0], "--configmap", str(broken))
    assert (code, "cannot be read" in err) == (2, True)


def test_phrases_of_a_command_line_become_fields(shell: Shell) -> None:
    words = (
        *("--objective", "minimize latency_ms", "--constraint", "memory_mb <= 512", "--where", "momentum < 0.9"),
        *("--initial", "opt=sgd, momentum=0.1", "--initial", "opt=adam", "--warm-start", "older", "--replicates", "3"),
    )
    code, out, err = shell("init", "-", *COMMAND, *PARAMS, *words)
    assert code == 0, err
    spec = yaml.safe_load(out)["spec"]
    assert spec["objectives"] == [{"type": "minimize", "metric": "latency_ms"}]
    assert spec["constraints"] == [{"metric": "memory_mb", "le": 512.0}]
    assert spec["parameterConstraints"] == ["momentum < 0.9"]
    assert spec["initialTrials"] == [{"opt": "sgd", "momentum": "0.1"}, {"opt": "adam"}]
    assert spec["warmStart"] == {"from": ["older"]}
    assert spec["replicates"] == 3
    assert spec["parameters"][1]["when"] == {"opt": ["sgd"]}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--objective", "minimise x"), "does not say what to maximize or minimize"),
        (("--constraint", "x < 3"), "a bound is <= or >=, not <"),
        (("--constraint", "x"), "is not a bound of a metric"),
        (("--where", "momentun < 3"), 'no parameter is called "momentun"'),
        (("--where", "opt == 'sgd' and opt == 'adam'"), "no values of opt satisfy this"),
        (("--initial", "sgd"), "is not a value of a parameter"),
        (("--initial", "opt=rmsprop"), "opt cannot be"),
        (("--replicates", "200"), "200 is not between 1 and 100"),
        (("-p", "beta=uniform(0,1) if optimizer=sgd"), "the command does not use"),
    ],
)
def test_a_phrase_that_is_none_is_one_sentence(shell: Shell, words: tuple[str, ...], sentence: str) -> None:
    code, out, err = shell("init", "-", *COMMAND, *PARAMS, *words)
    assert (code, out) == (2, "")
    assert sentence in err


def test_a_rendered_trial_has_only_the_parameters_that_are_there(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    shell("init", str(file), "--algorithm", "random", *COMMAND, *PARAMS)
    for opt, command in (
        ("adam", ["train", "--opt", "adam"]),
        ("sgd", ["train", "--opt", "sgd", "--momentum", "0.5"]),
    ):
        trial = yaml.safe_load(shell("render", str(file), "--set", f"opt={opt}", "--set", "momentum=0.5")[1])
        assert trial["spec"]["template"]["spec"]["containers"][0]["command"] == command
