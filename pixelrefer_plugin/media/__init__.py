"""Pixels from files: pictures and videos."""
