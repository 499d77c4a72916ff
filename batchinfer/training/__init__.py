"""Learning from a job's answers: a student that takes live queries which the list does not have."""
