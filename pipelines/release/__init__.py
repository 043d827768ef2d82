"""Releases: manifests, reproducible builds, and the way from a candidate into production."""
