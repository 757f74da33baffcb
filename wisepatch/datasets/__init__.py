"""Make tasks of images, labels, class names and prompts. Knows no model."""
