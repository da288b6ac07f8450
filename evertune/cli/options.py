"""Options and arguments that several commands share, so that they are called the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evertune.cli.output.forms import Form

Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment.", show_default=False)]
Namespace = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--namespace",
        metavar="NAMESPACE",
        help="Namespace of the experiment; else EVERTUNE_NAMESPACE, else default.",
        show_default=False,
    ),
]
Output = Annotated[Form, typer.Option("-o", "--output", help="table, wide, json, yaml, csv or name.")]
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="An experiment as YAML or JSON; - is standard input.", show_default=False)
]
NewName = Annotated[
    str | None, typer.Option("--name", help="Call the experiment so, whatever the file says.", show_default=False)
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="FILE",
        help="YAML map of image name to the directory that holds the image's files.",
        show_default=False,
    ),
]
ImageRoot = Annotated[
    list[str] | None,
    typer.Option(
        "--image-root",
        metavar="IMAGE=DIR",
        help="Where the files of one image are; may be repeated.",
        show_default=False,
    ),
]
ConfigMaps = Annotated[
    list[Path] | None,
    typer.Option(
        "--configmap",
        metavar="FILE",
        help="ConfigMaps as YAML or JSON, for trial templates that are in one; may be repeated.",
        show_default=False,
    ),
]
Backend = Annotated[
    str | None,
    typer.Option("--backend", metavar="BACKEND", help="local or kubernetes.", show_default=False),
]
Context = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="CONTEXT",
        help="The cluster, as a context of the kubeconfig; else EVERTUNE_KUBE_CONTEXT, else the current one.",
        show_default=False,
    ),
]
Detach = Annotated[bool, typer.Option("-d", "--detach", help="Return once it is admitted.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=0.0,
        help="Give up watching after this time (exit 4); the experiment goes on.",
        show_default=False,
    ),
]
