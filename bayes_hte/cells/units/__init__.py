"""Reduce rows of units to cells, inside the engine that holds them."""
