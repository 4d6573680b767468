"""Go through the front door: fit, run, load, and several fits at once."""
