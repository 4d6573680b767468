"""Simulate experiments whose truth is known: rows of units, or cells drawn from their sampling distributions."""
