"""Sample the PyMC model with nutpie, and keep its machine code for data of the same structure."""
