"""Training: recipes and schedules as values, one small loop, run folders, evaluation and prediction."""
