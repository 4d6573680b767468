"""Find priors and try them out: learned from past experiments, swept, seen before any fit."""
