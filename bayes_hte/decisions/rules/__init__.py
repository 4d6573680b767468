"""Rules applied to joint draws: what holds and how probably, the reason in words, guardrails beside goals."""
