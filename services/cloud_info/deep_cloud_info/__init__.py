"""Publishes what a site has, what of it is free and for whom, as GLUE 2.1 in JSON."""
