"""Fine-tuning with an objective, averages and adapters; the Fisher information and Gram matrices of what was trained."""
