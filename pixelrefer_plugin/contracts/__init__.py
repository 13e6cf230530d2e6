"""What the host and its plugins promise each other: specs, and the values in between."""
