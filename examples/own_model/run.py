"""A model written by hand in PyMC, and its draws through tables and report of bayes_hte.

Twelve segments of a sign-up test, device × country: the effect of a segment is the sum of a device's, a country's and
an interaction of its own with heavy tails, because one combination may be broken while all others are fine.

    python examples/own_model/run.py [report.html]
"""

import sys

import numpy as np
import pandas as pd
import pymc as pm

import bayes_hte as hte

DEVICES, COUNTRIES = ["desktop", "phone", "tablet"], ["BR", "DE", "IN", "US"]
SEED = 20


def simulated() -> pd.DataFrame:
    """Sign-ups per device, country and arm; the new form is broken on tablets in India."""
    rng = np.random.default_rng(SEED)
    rows = []
    for device, size in zip(DEVICES, [8000, 12000, 5000], strict=True):
        for country, share in zip(COUNTRIES, [0.2, 0.15, 0.25, 0.4], strict=True):
            baseline = -1.8 + rng.normal(0, 0.3)
            effect = 0.15 + (0.15 if device == "phone" else 0) - (1.2 if (device, country) == ("tablet", "IN") else 0)
            for arm, lift in {"old form": 0.0, "new form": effect}.items():
                n = rng.poisson(size * share)
                events = rng.binomial(n, 1 / (1 + np.exp(-baseline - lift)))
                rows.append({"device": device, "country": country, "arm": arm, "n": n, "signups": events})
    return pd.DataFrame(rows)


cells = hte.cells.from_summary(
    simulated(), arm="arm", control="old form", segments=["device", "country"], n="n", events="signups"
)

# Dims and labels are those of the cells: bayes_hte matches draws to segments by label, never by position.
coords = {
    "segment": cells["segment"].values.astype(str),
    "device": DEVICES,
    "country": COUNTRIES,
    "variant": cells["arm"].values.astype(str),
}
device = [DEVICES.index(each) for each in cells["device"].values]
country = [COUNTRIES.index(each) for each in cells["country"].values]

with pm.Model(coords=coords) as model:
    baseline_mean = pm.Normal("baseline_mean", 0, 2.5)
    baseline_between = pm.HalfNormal("baseline_between", 1)
    baseline_offset = pm.Normal("baseline_offset", dims="segment")
    baseline = pm.Deterministic("baseline", baseline_mean + baseline_between * baseline_offset, dims="segment")

    common = pm.Normal("common", 0, 0.5)
    of_device = pm.Normal("of_device", 0, 0.2, dims="device")
    of_country = pm.Normal("of_country", 0, 0.2, dims="country")
    interaction_scale = pm.HalfNormal("interaction_scale", 0.3)
    interaction_offset = pm.StudentT("interaction_offset", nu=4, dims="segment")
    interaction = interaction_scale * interaction_offset
    effect = pm.Deterministic("effect", common + of_device[device] + of_country[country] + interaction, dims="segment")

    eta = pm.math.stack([baseline, baseline + effect], axis=1)
    pm.Binomial(
        "signups", n=cells["n"].values, logit_p=eta, observed=cells["events"].values, dims=("segment", "variant")
    )

    draws = pm.sample(
        draws=1000,
        tune=1000,
        chains=4,
        nuts={"target_accept": 0.95},
        random_seed=SEED,
        progressbar=False,
        nuts_sampler="nutpie",
    )

fit = hte.from_posterior(draws, cells, link="logit", title="Device, country, and an interaction with heavy tails")

print(fit.diagnosis)
print(fit.table()[["device", "country", "raw", "effect", "ci_low", "ci_high", "p_negative"]].round(3).to_string())
print(fit.ate().round(4).to_string())
if len(sys.argv) > 1:
    print(f"written: {fit.report(sys.argv[1])}")
