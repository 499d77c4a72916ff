"""What people say: reviews written for them, and their verdicts and predictions taken in."""
