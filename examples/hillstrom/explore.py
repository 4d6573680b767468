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
# # For whom do the e-mails work?
#
# 64,000 customers of a shop got an e-mail about men's clothes, one about women's clothes, or none. Open this file as a
# notebook with jupytext.

# %%
from pathlib import Path

import arviz as az

import bayes_hte as hte

plan = next(path for path in (Path("plan.toml"), Path("examples/hillstrom/plan.toml")) if path.exists())
fit = hte.run(plan)
fit

# %% [markdown]
# All the model saw are the figures of the cells: ten segments in three arms.

# %%
fit.cells

# %%
fit.table().round(3)

# %%
fit.plot_forest(arm="Women's e-mail")

# %% [markdown]
# Large segments keep their own estimate; the smallest, customers who bought both, lean a little on the others.

# %%
fit.plot_shrinkage(arm="Women's e-mail")

# %% [markdown]
# Which segments differ from all others? Contrasts come from joint draws.

# %%
contrasts = fit.contrasts("rest")
contrasts[contrasts["arm"] == "Women's e-mail"].round(3)

# %%
fit.heterogeneity().round(3)

# %% [markdown]
# What to expect of customers unlike those in the test:

# %%
fit.predict_new_segment().round(3)

# %% [markdown]
# Every draw is at hand as xarray: the probability that the women's e-mail beats the men's, segment by segment.

# %%
effect = fit.posterior["posterior"]["effect"]
beats = effect.sel(arm="Women's e-mail") > effect.sel(arm="Men's e-mail")
beats.mean(("chain", "draw")).to_pandas().round(3)

# %% [markdown]
# ArviZ's own functions take the posterior as it is.

# %%
az.summary(fit.posterior, var_names=["effect_mean", "effect_between"])

# %%
az.plot_forest(fit.posterior, var_names=["effect"], combined=True, backend="matplotlib")

# %%
assert fit.diagnosis.ok
womens = fit.table().query('arm == "Women\'s e-mail"').groupby("bought")["effect"].mean()
assert womens["women's only"] > 3 * womens["men's only"]
