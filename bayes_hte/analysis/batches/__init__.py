"""Many problems at once: from a long table of cells to a plain table of results, on one machine or a cluster."""
