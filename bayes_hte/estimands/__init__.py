"""Compute from draws what was asked: effects on each scale, tables, heterogeneity, dimensions, survival."""
