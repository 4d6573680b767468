"""Join what is believed and the cells it is believed of: parameters, priors, families, the PyMC model and its texts."""
