"""From regions to object tokens in the decoder's embeddings."""
