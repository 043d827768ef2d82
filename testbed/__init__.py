"""Raise, inspect and remove DEEP testbeds, and deploy sites from the same inventory model."""
