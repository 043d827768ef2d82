"""Benchmarks of nodes: measured by one method, kept with the machine they ran on, compared by tests of statistics."""
