"""Studies: questions to the user's own network and data, answered by many trainings (paper §3.2, §3.3, §5)."""
