"""A stand-in for training: ends when it no longer gets better; where x is too large it diverges, and has no end."""

import argparse
import time

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--x", type=float, required=True)
parser.add_argument("--layers", type=int, required=True)
parser.add_argument("--optimizer", required=True)
args = parser.parse_args()
reachable = (args.x - 1) ** 2 + abs(args.layers - 3) + (args.optimizer == "sgd")
loss = float("inf")
for step in range(1, 601):
    before, loss = loss, reachable + 1 / step + max(0.0, args.x - 3) * step
    print(f"step={step} loss={loss:.4f}", flush=True)
    if 0 <= before - loss < 0.01:
        break
    time.sleep(0.05)
