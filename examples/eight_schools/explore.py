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
# # Eight schools
#
# Eight schools tested coaching for the SAT, each with its own experiment (Rubin 1981). School A gained 28 points, give
# or take 15. Do we believe 28?

# %%
from pathlib import Path

import arviz as az

import bayes_hte as hte

plan = next(path for path in (Path("plan.toml"), Path("examples/eight_schools/plan.toml")) if path.exists())
fit = hte.run(plan)
fit

# %%
fit.cells

# %%
fit.plot_forest()

# %% [markdown]
# School A's estimate is mostly borrowed: its pooling factor is above nine tenths.

# %%
fit.table(detail=True).round(2)

# %%
fit.plot_shrinkage()

# %%
fit.heterogeneity().round(2)

# %%
fit.contrasts("pairs").head().round(2)

# %%
fit.predict_new_segment().round(2)

# %% [markdown]
# Every draw is at hand as xarray: the probability that a school's coaching is the best of all.

# %%
effect = fit.posterior["posterior"]["effect"].sel(arm="treated")
(effect == effect.max("segment")).mean(("chain", "draw")).to_pandas().round(2)

# %%
az.summary(fit.posterior, var_names=["effect_mean", "effect_between"])

# %%
az.plot_forest(fit.posterior, var_names=["effect"], combined=True, backend="matplotlib")

# %%
az.loo(fit.posterior)

# %%
school_a = fit.table().iloc[0]
assert fit.diagnosis.ok
assert 4 < school_a["effect"] < 9
