"""Read what is stated of a simulated experiment: segments, shares, baselines, effects, or the past that gives them."""
