"""Fine-tuning, and the Fisher information of what was trained."""
