"""Build the PyMC model."""
