"""Declarative Jenkinsfiles: their syntax trees, and what is wrong with them."""
