"""What is deployed and where it comes from: declarations, builds, the store and its mirror."""
