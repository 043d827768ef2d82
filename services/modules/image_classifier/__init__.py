"""Handwritten digits: a neural network that is trained, asked and trained anew over the DEEPaaS interface."""
