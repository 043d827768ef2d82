"""Benchmarks of the node that a deployment is on, with the arguments and the result of DEEP's own benchmark module."""
