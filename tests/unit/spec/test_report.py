"""What `evertune validate` prints: the drawn form, line by line, and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evertune.spec import check, check_all, parse_documents
from evertune.spec.report import as_dict, plain, report_lines, summary_line
from tests.unit.spec.samples import SomeAlgorithms

DIGITS = """\
apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata:
  name: digits
spec:
  objective: {type: maximize, objectiveMetricName: accuracy}
  maxTrialCount: 24
  algorithm:
    algorithmName: tpee
  trialTemplate:
    primaryContainerName: main
    trialParameters:
      - name: C
        reference: C
      - name: gamma
        reference: gama
    trialSpec:
      apiVersion: batch/v1
      kind: Job
      spec:
        template:
          spec:
            restartPolicy: Never
            containers:
              - {name: main, command: [train, "${trialParameters.C}", "${trialParameters.gamma}"]}
  parameters:
    - name: C
      parameterType: double
      feasibleSpace: {min: "1000", max: "0.01"}
    - name: gamma
      parameterType: double
      feasibleSpace: {min: "0.1", max: "1"}
"""

EXPECTED = """\
error: spec.algorithm.algorithmName: "tpee" is not an algorithm
  --> digits.yaml:9:20
   |
 8 |   algorithm:
 9 |     algorithmName: tpee
   |                    ^^^^ did you mean "tpe"?
   = known: random grid tpe multivariate-tpe picky cmaes auto

error: spec.trialTemplate.trialParameters[1].reference: no parameter "gama"
  --> digits.yaml:16:20
   |
15 |       - name: gamma
16 |         reference: gama
   |                    ^^^^ did you mean "gamma"?
   = parameters: C gamma

error: spec.parameters[0].feasibleSpace: min must be below max
  --> digits.yaml:29:28
   |
27 |     - name: C
28 |       parameterType: double
29 |       feasibleSpace: {min: "1000", max: "0.01"}
   |                            ^^^^^^ 1000 is above 0.01
   = mend: {min: "0.01", max: "1000"}

digits.yaml: 3 errors, 0 warnings"""


def test_three_errors_look_as_drawn() -> None:
    verdict = check(parse_documents(DIGITS, "digits.yaml")[0], SomeAlgorithms())
    assert plain(report_lines(verdict)) == EXPECTED


def test_the_json_form_names_place_class_and_mend() -> None:
    verdict = check(parse_documents(DIGITS, "digits.yaml")[0], SomeAlgorithms())
    document = json.loads(json.dumps(as_dict(verdict)))
    assert (document["file"], document["valid"], document["warnings"]) == ("digits.yaml", False, [])
    assert document["errors"][0] == {
        "path": "spec.algorithm.algorithmName",
        "type": "Invalid",
        "message": '"tpee" is not an algorithm',
        "hint": 'did you mean "tpe"?; known: random grid tpe multivariate-tpe picky cmaes auto',
        "line": 9,
        "column": 20,
    }


def test_a_valid_search_of_networks_is_not_said_to_have_no_parameters() -> None:
    text = (Path(__file__).parents[2] / "data/katib/nas/enas-cpu.yaml").read_text()
    text = text.replace("algorithmName: enas", "algorithmName: tpe")
    verdict = check(parse_documents(text, "enas.yaml")[0], SomeAlgorithms())
    assert plain([summary_line(verdict)]) == "enas.yaml: valid (tpe, architectures, 3 trials)"


def test_a_valid_file_is_one_line() -> None:
    mended = DIGITS.replace("tpee", "tpe").replace("gama\n", "gamma\n").replace('"1000"', '"0.001"')
    verdict = check(parse_documents(mended, "digits.yaml")[0], SomeAlgorithms())
    assert plain(report_lines(verdict)) == "digits.yaml: valid (tpe, 2 parameters, 24 trials)"


def test_styles_are_segments_beside_the_same_text() -> None:
    verdict = check(parse_documents(DIGITS, "digits.yaml")[0], SomeAlgorithms())
    styles = {style for line in report_lines(verdict) for _, style in line}
    assert {"error", "bold", "place", "gutter", "caret", "mend"} <= styles


def test_a_file_on_one_long_line_is_cut_around_the_mistake() -> None:
    text = '{"apiVersion": "kubeflow.org/v1beta1", ' + '"x": "' + "y" * 500 + '", "kind": "Deployment"}'
    lines = plain(report_lines(check(parse_documents(text, "x.json")[0]))).splitlines()
    marked = next(line for line in lines if "^" in line)
    shown = lines[lines.index(marked) - 1]
    assert all(len(line) <= 82 for line in lines if "|" in line)
    assert shown[marked.index("^") :].startswith('"Deployment"')


@pytest.mark.parametrize("width", [20, 80, 200])
def test_any_width_prints(width: int) -> None:
    verdict = check(parse_documents(DIGITS, "digits.yaml")[0], SomeAlgorithms())
    assert plain(report_lines(verdict, width=width)).count("-->") == 3


CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: templates, namespace: kubeflow}
data:
  job.yaml: |
    apiVersion: batch/v1
    kind: Job
    spec:
      completions: ${trialParameters.C}
      template: {spec: {restartPolicy: Never, containers: [{name: main, command: ["${trialParameters.gamma}"]}]}}
---
"""


def test_a_configmap_in_the_same_file_is_the_template() -> None:
    head, _, tail = (
        DIGITS.replace("tpee", "tpe")
        .replace("gama\n", "gamma\n")
        .replace('"1000"', '"0.001"')
        .partition("    trialSpec:")
    )
    source = (
        "    successCondition: a\n    failureCondition: b\n"
        "    configMap: {configMapName: templates, configMapNamespace: kubeflow, templatePath: job.yaml}\n"
    )
    text = CONFIG_MAP + head + source + tail[tail.index("  parameters:") :]
    verdicts = check_all(parse_documents(text, "x.yaml"), SomeAlgorithms())
    assert [verdict.valid for verdict in verdicts] == [True, False]
    (problem,) = verdicts[1].problems  # the number of completions cannot be a text
    assert "spec.completions must be a whole number" in problem.message
    assert plain([summary_line(verdicts[0])]) == "x.yaml: valid (a ConfigMap)"


def test_control_characters_of_a_file_never_reach_the_terminal() -> None:
    text = (
        'name: a\ncommand: x\n"bad\\e[31m\\nkey": 1\nobjective: maximize a\nparameters: {"l\\nr": "uniform(0,1)"}\n'
        'algorithm: {name: tpe, "\\e[2J": "\\n"}\n'
    )
    (verdict,) = check_all(parse_documents(text, "x.yaml"), SomeAlgorithms())

    assert len(verdict.problems) >= 2
    assert all(problem.message.isprintable() for problem in verdict.problems)
    assert "\x1b" not in plain(report_lines(verdict))
    assert all(line.isprintable() for line in plain(report_lines(verdict)).splitlines())
