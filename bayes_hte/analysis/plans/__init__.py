"""Carry out plans with several questions, and hold them to what was registered."""
