"""Starts the Infrastructure Manager with what its own options cannot say."""
