"""What is likely to spoil a training, or has spoilt one: findings with numbers, each with a way out."""
