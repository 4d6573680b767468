"""Combine two tests of the same change: one model of both, and where they disagree."""
