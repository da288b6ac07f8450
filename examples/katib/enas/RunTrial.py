"""Stands in for Katib's ENAS trainer: builds the network that it is given, in words, and prints accuracies."""

import argparse
import json
import math


def decoded(text):
    return json.loads(text.replace("'", '"'))


parser = argparse.ArgumentParser()
parser.add_argument("--architecture", type=decoded, required=True)
parser.add_argument("--nn_config", type=decoded, required=True)
parser.add_argument("--num_epochs", type=int, default=10)
parser.add_argument("--num_gpus", type=int, default=1)
args = parser.parse_args()

print(">>> arguments received by trial")
print(f"Input size {args.nn_config.get('input_sizes')}, {args.nn_config.get('num_layers')} layers")
quality = 0.0
for number, (operation, *skips) in enumerate(args.architecture, start=1):
    print(f"Layer {number}: operation {operation}, skip connections {skips}")
    quality += math.sin(operation) ** 2 + 0.1 * sum(skips)
quality /= len(args.architecture)
for epoch in range(1, args.num_epochs + 1):
    accuracy = (0.4 + 0.5 * quality / (1 + quality)) * (1 - math.exp(-epoch))
    print(f"Epoch {epoch}/{args.num_epochs}")
    print(f"Training-Accuracy={accuracy + 0.02:.4f}\nTraining-Loss={-math.log(accuracy):.4f}")
    print(f"Validation-Accuracy={accuracy:.4f}\nValidation-Loss={-math.log(accuracy) + 0.01:.4f}")
