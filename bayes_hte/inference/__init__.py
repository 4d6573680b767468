"""Draw from the posterior of a problem: the exact engine, and NUTS."""
