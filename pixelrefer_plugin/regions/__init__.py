"""What the user points at, as geometry."""
