"""What modules share: their arguments, their trained model, and what they say about themselves and their GPUs."""
