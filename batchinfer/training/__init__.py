"""Learning from answers: what a student of them is worth, and an adapter that makes the model better at its task."""
