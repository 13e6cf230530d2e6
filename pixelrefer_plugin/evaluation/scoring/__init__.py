"""Benchmarks opened, and answers scored: figures in whole, in groups and resampled."""
