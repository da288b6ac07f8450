"""Stands in for Katib's simple-pbt trainer: the best learning rate moves with the step; goes on from its checkpoint."""

import argparse
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.0001)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--checkpoint", default="/var/log/katib/checkpoints/")
args = parser.parse_args()

directory = pathlib.Path(args.checkpoint)
directory.mkdir(parents=True, exist_ok=True)
checkpoint = directory / "training.ckpt"
first, accuracy = 1, 0.0
if checkpoint.exists():
    saved = checkpoint.read_text().split()
    first, accuracy = int(saved[0]), float(saved[1])

for step in range(first, first + args.epochs):
    middle = 0.01 + 0.005 * (step % 5)  # the best learning rate, which drifts
    accuracy = min(1.0, accuracy + max(0.0, 0.02 - abs(args.lr - middle)))
    print(f"epoch {step}:\nlr={args.lr:0.4f}\nValidation-accuracy={accuracy:0.4f}")
checkpoint.write_text(f"{first + args.epochs} {accuracy}")
