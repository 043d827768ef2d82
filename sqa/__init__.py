"""Quality gates: published criteria, what shows that they are met, and how sure that is."""
