"""What decisions of finished runs are worth."""
