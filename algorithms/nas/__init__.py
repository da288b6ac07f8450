"""Architectures: what `nasConfig` describes, as a list of operations and as a flat space of choices.

Used by `enas`, `nas_evolution` and `darts`, and by the steering that lets any sampler of categories search networks.
"""
