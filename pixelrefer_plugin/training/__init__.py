"""Training on one's own regions: batches, the trainer, and what runs it from a configuration."""
