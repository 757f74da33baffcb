"""What a fine-tuning minimises: each objective prepares once, and gives the loss of each batch."""
