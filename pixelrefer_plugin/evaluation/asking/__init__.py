"""Questions, where they come from, and what answers them."""
