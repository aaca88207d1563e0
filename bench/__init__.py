"""Benchmarks: this project beside its peer, in one run, as ratios."""
