"""Propose a plan from the names and the levels of a file's columns, and write it with the reason of every guess."""
