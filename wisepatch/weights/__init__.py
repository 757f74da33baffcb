"""Tensors in, tensors out: interpolation, merge methods, file-to-file streaming; knows no model."""
