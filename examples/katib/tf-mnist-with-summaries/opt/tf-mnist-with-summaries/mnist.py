"""Stands in for Katib's tf-mnist-with-summaries trainer: its arguments, its event files, no training.

Needs tensorboardX, which evertune brings along; TensorFlow it does not need.
"""

import argparse
import math
import pathlib

from tensorboardX import SummaryWriter

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--learning-rate", type=float, default=0.001)
parser.add_argument("--log-path", default="logs/mnist-with-summaries")
args, _ = parser.parse_known_args()

best = 0.05 + 0.3 * abs(math.log10(args.learning_rate / 0.02)) + 0.001 * abs(args.batch_size - 48)
writers = {name: SummaryWriter(str(pathlib.Path(args.log_path) / name)) for name in ("train", "test")}
for epoch in range(1, args.epochs + 1):
    loss = best + 2.2 * math.exp(-1.5 * epoch)
    for name, worse in (("train", 0.0), ("test", 0.02)):
        writers[name].add_scalar("loss", loss + worse, epoch)
        writers[name].add_scalar("accuracy", math.exp(-(loss + worse) / 3), epoch)
    print(f"Epoch {epoch}, Loss: {loss:.4f}, Accuracy: {100 * math.exp(-loss / 3):.2f}")
for writer in writers.values():
    writer.close()
