"""Benchmarks: each against a peer or a bound in the same run, printed as a ratio with its spread."""
