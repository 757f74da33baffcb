"""Images, labels, class names and prompts: everything that makes a task. Knows no model."""
