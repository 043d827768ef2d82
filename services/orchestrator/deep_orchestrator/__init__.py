"""The embedded orchestrator: chooses a site for a deployment, deploys it there, and elsewhere where that fails."""
