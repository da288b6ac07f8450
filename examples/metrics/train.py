"""A stand-in for training, ten epochs in a second, that reports in the way it is told. See docs/metrics.md."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

EPOCHS = 10
Reporter = Callable[[int, float, float], None]


def text(epoch: int, accuracy: float, loss: float) -> None:
    print(f"epoch={epoch} val_accuracy={accuracy:.4f} loss={loss:.4f}", flush=True)


def words(epoch: int, accuracy: float, loss: float) -> None:
    print(f"Epoch {epoch}/{EPOCHS}: val_accuracy is {accuracy:.4f}, loss is {loss:.4f}", flush=True)


def lines_to(path: Path) -> Reporter:
    def report(epoch: int, accuracy: float, loss: float) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"epoch={epoch} val_accuracy={accuracy:.4f} loss={loss:.4f}\n")

    return report


def json_to(path: Path) -> Reporter:
    def report(epoch: int, accuracy: float, loss: float) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, "val_accuracy": accuracy, "loss": loss}) + "\n")

    return report


def events_to(path: Path) -> Reporter:
    from tensorboardX import SummaryWriter  # or torch.utils.tensorboard, or TensorFlow's own

    writer = SummaryWriter(str(path), flush_secs=1)

    def report(epoch: int, accuracy: float, loss: float) -> None:
        writer.add_scalar("val_accuracy", accuracy, epoch)
        writer.add_scalar("loss", loss, epoch)
        if epoch == EPOCHS:
            writer.close()

    return report


def scraped_at(port: int) -> Reporter:
    from prometheus_client import Gauge, start_http_server

    start_http_server(port, addr="127.0.0.1")
    accuracy_gauge, loss_gauge = Gauge("val_accuracy", "of the validation set"), Gauge("loss", "of the training set")

    def report(epoch: int, accuracy: float, loss: float) -> None:
        accuracy_gauge.set(accuracy)
        loss_gauge.set(loss)
        time.sleep(4 if epoch == EPOCHS else 0)  # what was never scraped was never seen

    return report


def push(epoch: int, accuracy: float, loss: float) -> None:
    from evertune.report import report

    report(val_accuracy=accuracy, loss=loss, step=epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--x", type=float, required=True)
    parser.add_argument("--as", dest="form", default="text")
    parser.add_argument("--to", type=Path, help="the file or directory of the forms lines, json and events")
    parser.add_argument("--port", type=int, default=8123)
    given = parser.parse_args()
    if given.to is not None:
        (given.to if given.form == "events" else given.to.parent).mkdir(parents=True, exist_ok=True)
    forms: dict[str, Callable[[], Reporter]] = {
        "text": lambda: text,
        "words": lambda: words,
        "lines": lambda: lines_to(given.to),
        "json": lambda: json_to(given.to),
        "events": lambda: events_to(given.to),
        "prometheus": lambda: scraped_at(given.port),
        "push": lambda: push,
    }
    if given.form not in forms:
        sys.exit(f"--as is {given.form}: it must be one of {', '.join(forms)}")
    report = forms[given.form]()
    for epoch in range(1, EPOCHS + 1):
        time.sleep(0.05)
        loss = (given.x - 0.3) ** 2 + 1 / (10 * epoch)
        report(epoch, 1 - loss, loss)


if __name__ == "__main__":
    main()
