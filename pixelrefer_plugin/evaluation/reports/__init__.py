"""Reports of figures: a table, JSON, and a page that needs nothing else."""
