"""Pixels from files, pictures and videos; and letters on them."""
