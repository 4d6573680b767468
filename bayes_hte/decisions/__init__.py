"""Decide what follows from the posterior: for now, which signs are called."""
