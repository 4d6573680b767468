"""Question a fit: diagnosis, ArviZ groups, left-out segments, tau, priors, predictive checks."""
