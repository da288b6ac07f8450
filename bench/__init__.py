"""Benchmarks: each module measures one promise and gives figures, beside a reference from the same run where it can."""
