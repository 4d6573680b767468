"""Hold a fit against what every segment says on its own: priors, size, segments that the others do not predict."""
