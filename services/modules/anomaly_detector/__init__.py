"""Anomalies in several series of measurements at once, such as those of a computing centre's network."""
