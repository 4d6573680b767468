"""Draw the forest plot: the standard picture of effects that differ."""
