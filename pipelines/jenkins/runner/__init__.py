"""Runs Jenkinsfiles for tests. It is not Jenkins: see ``run``."""
