# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A payment for learning one's HIV result
#
# In rural Malawi people were tested for HIV; chance decided whether they were offered money to come for the result.
# With few people in most villages, reading each village alone finds noise.

# %%
from pathlib import Path

import arviz as az

import bayes_hte as hte

plan = next(path for path in (Path("plan.toml"), Path("examples/thornton/plan.toml")) if path.exists())
fit = hte.run(plan)
hte.cells.check(fit.cells)

# %% [markdown]
# Raw differences run from −1 to 1. The pooled ones do not: the villages hardly differ more than chance makes them.

# %%
fit.plot_shrinkage()

# %%
fit.table()[["raw", "effect", "pooling"]].describe().round(2)

# %%
fit.heterogeneity().round(3)

# %% [markdown]
# What to expect in a village that was not in the study:

# %%
fit.predict_new_segment().round(3)

# %%
az.summary(fit.posterior, var_names=["effect_mean", "effect_between", "baseline_mean", "baseline_between"])

# %%
table = fit.table().dropna(subset=["raw"])
assert fit.diagnosis.ok
assert table["effect"].std() < table["raw"].std() / 3
