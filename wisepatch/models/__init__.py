"""A CLIP: its towers, the zero-shot head, the classifier, importing, exporting, and the Hub."""
