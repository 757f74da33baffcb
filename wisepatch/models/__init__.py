"""A CLIP: its towers, the zero-shot head, the classifier, importing and exporting."""
