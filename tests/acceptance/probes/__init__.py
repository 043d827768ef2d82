"""What the acceptance checks share: the site as its inventory says it, its cluster, and the verdict."""
