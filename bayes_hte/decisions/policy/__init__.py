"""Policies, who gets what: their worth from joint draws, under costs and a budget, for a stated population."""
