"""Draw the data of simulated experiments: cells from their sampling distributions, rows in memory or in DuckDB."""
