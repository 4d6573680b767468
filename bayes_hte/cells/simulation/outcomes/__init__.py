"""Laws of outcomes: one file for each kind, from a cell's mean to its units and its sufficient statistics.

They are written from the distributions themselves and share no code with the likelihoods in `model/families`, so that
a fit of simulated cells tests both.
"""
