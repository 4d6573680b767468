"""One-way, crossed and nested models as a Gaussian given a few coordinates: weights are exact, no quadrature."""
