"""Jobs of Jenkins: their definitions, how they get to a server, and how their builds are run."""
