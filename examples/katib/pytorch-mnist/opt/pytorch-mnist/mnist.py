"""Stands in for Katib's pytorch-mnist trainer: its arguments, its output, no training.

Takes two seconds, so that an early stopping rule has something to stop; STAND_IN_SECONDS says another number.
"""

import argparse
import json
import logging
import math
import os
import pathlib
import time

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--test-batch-size", type=int, default=1000)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--momentum", type=float, default=0.5)
parser.add_argument("--log-interval", type=int, default=10)
parser.add_argument("--log-path", default="")
parser.add_argument("--logger", choices=["standard", "hypertune"], default="standard")
args, _ = parser.parse_known_args()

hypertune = args.logger == "hypertune"
logging.basicConfig(
    format="%(asctime)s %(levelname)-8s %(message)s",
    datefmt="%Y-%m-%dT%H:%M:%SZ",
    level=logging.INFO,
    filename=args.log_path if args.log_path and not hypertune else None,
)
logging.Formatter.converter = time.gmtime
best = 0.05 + 1.5 * abs(math.log10(args.lr / 0.02)) + 0.4 * (args.momentum - 0.6) ** 2
batches = 60000 // args.batch_size
lines = args.epochs * (1 + len(range(0, batches, args.log_interval * 10)))
pause_s = float(os.environ.get("STAND_IN_SECONDS", "2")) / lines
for epoch in range(1, args.epochs + 1):
    for batch in range(0, batches, args.log_interval * 10):
        loss = best + 2.2 * math.exp(-3 * (epoch - 1 + batch / batches))
        seen = batch * args.batch_size
        time.sleep(pause_s)
        logging.info("Train Epoch: %d [%d/60000 (%.0f%%)]\tloss=%.4f", epoch, seen, 100 * batch / batches, loss)
    time.sleep(pause_s)
    accuracy = math.exp(-loss / 3)
    if hypertune:
        record = {"timestamp": time.time(), "trial": "0", "loss": f"{loss:.4f}", "accuracy": f"{accuracy:.4f}"}
        with pathlib.Path(args.log_path).open("a") as log:
            log.write(json.dumps(record) + "\n")
    logging.info("{metricName: accuracy, metricValue: %.4f};{metricName: loss, metricValue: %.4f}\n", accuracy, loss)
