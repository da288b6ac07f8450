"""A stand-in for training that takes four seconds and says from the first step how good it will be."""

import argparse
import time

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--x", type=float, required=True)
x = parser.parse_args().x
for step in range(1, 41):
    time.sleep(0.1)
    print(f"step={step} loss={(x - 0.3) ** 2 + 0.1 / step:.4f}", flush=True)
