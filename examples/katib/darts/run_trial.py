"""Stands in for Katib's DARTS trainer: reads the search space it is given and names a genotype from it."""

import argparse
import json


def decoded(text):
    return json.loads(text.replace("'", '"'))


parser = argparse.ArgumentParser()
parser.add_argument("--algorithm-settings", type=decoded, default={})
parser.add_argument("--search-space", type=decoded, default=[])
parser.add_argument("--num-layers", type=int, default=1)
args = parser.parse_args()

epochs = int(args.algorithm_settings.get("num_epochs") or 1)
nodes = int(args.algorithm_settings.get("num_nodes") or 2)
print(f">>> arguments: {args.num_layers} layers, {nodes} nodes, operations {args.search_space}")
best = 0.0
for epoch in range(1, epochs + 1):
    accuracy = 0.9 - 0.6 / epoch
    print(f"Train: [{epoch}/{epochs}] Step 001/001 Loss {2.3 / epoch:.3f} Prec@(1,5) ({accuracy:.1%}, {accuracy:.1%})")
    best = max(best, accuracy)
edges = [[(operation, node) for operation in args.search_space[:2]] for node in range(nodes)]
concat = f"range(2,{2 + nodes})"
genotype = f"Genotype(normal={edges},normal_concat={concat},reduce={edges},reduce_concat={concat})"
print(f"Final best Prec@1 = {best:.4%}\n")
print(f"Best-Genotype={genotype.replace(' ', '')}")
