"""From the decoder's hidden states to masks of objects."""
