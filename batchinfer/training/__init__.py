"""Learning from a job's answers: what a student of them is worth."""
