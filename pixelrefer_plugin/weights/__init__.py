"""Weights and model folders: found, loaded, checked, saved."""
