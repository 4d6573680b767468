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
import math
from pathlib import Path

import arviz as az

import bayes_hte as hte

plan = next(path for path in (Path("plan.toml"), Path("examples/thornton/plan.toml")) if path.exists())
fit = hte.run(plan)
fit.cells

# %% [markdown]
# What was dropped, and where the data are thin:

# %%
hte.cells.check(fit.cells)

# %% [markdown]
# Raw differences run from −.25 to 1. The pooled ones do not: the villages hardly differ more than chance makes them.

# %%
fit.plot_shrinkage()

# %%
fit.plot_forest()

# %%
fit.table()[["raw", "effect", "pooling"]].describe().round(2)

# %%
fit.heterogeneity().round(3)

# %% [markdown]
# The villages that differ most from all others, and how sure that is. With 120 to choose from, a few such
# probabilities are no surprise.

# %%
contrasts = fit.contrasts("rest")
contrasts.loc[contrasts["difference"].abs().nlargest(5).index].round(3)

# %% [markdown]
# What to expect in a village that was not in the study:

# %%
fit.predict_new_segment().round(3)

# %% [markdown]
# Every draw is at hand as xarray: the share of villages whose odds more than quadruple, with its interval.

# %%
effect = fit.posterior["posterior"]["effect"].sel(arm="offered")
share = (effect > math.log(4)).mean("segment")
share.quantile([0.025, 0.5, 0.975], dim=("chain", "draw")).to_pandas().round(2)

# %%
az.summary(fit.posterior, var_names=["effect_mean", "effect_between", "baseline_mean", "baseline_between"])

# %%
az.plot_forest(fit.posterior, var_names=["effect_mean", "effect_between"], combined=True, backend="matplotlib")

# %%
table = fit.table().dropna(subset=["raw"])
assert fit.diagnosis.ok
assert table["effect"].std() < table["raw"].std() / 3
