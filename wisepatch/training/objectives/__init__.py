"""Objectives of fine-tuning: each prepares once, and gives the loss of each batch."""
