"""What clients asked for and did not find, on its way back into the job's list."""
