"""A small cell table by hand, for tests that need no data layer."""

import numpy as np
import xarray as xr

from bayes_hte.spec import cell_table


def table(data: dict[str, np.ndarray], *, arms: tuple[str, ...], control: str, dimension: str = "device") -> xr.Dataset:
    """A checked cell table with one dimension."""
    labels = [f"s{i}" for i in range(len(next(iter(data.values()))))]
    return cell_table.check_cell_table(
        xr.Dataset(
            {name: (("segment", "arm"), values) for name, values in data.items()},
            coords={"segment": labels, "arm": list(arms), dimension: ("segment", labels)},
            attrs={
                "outcome": "visit",
                "control": control,
                "dimensions": cell_table.encode_text_list([dimension]),
                "notes": "[]",
            },
        )
    )


ARMS = ("control", "email", "sms")


def levels_of(segments: int) -> dict[str, tuple[str, list[str]]]:
    """Two crossed dimensions."""
    return {
        "device": ("segment", [f"d{i % 3}" for i in range(segments)]),
        "plan": ("segment", [f"p{i // 3}" for i in range(segments)]),
    }


def _finished(data: dict[str, object], *, segments: int, arms: tuple[str, ...], extra: dict[str, object]) -> xr.Dataset:
    labels = [f"s{i}" for i in range(segments)]
    coords = {"segment": labels, "arm": list(arms), **levels_of(segments), **extra}
    attrs = {
        "outcome": "y",
        "control": arms[0],
        "dimensions": cell_table.encode_text_list(["device", "plan"]),
        "notes": "[]",
    }
    return xr.Dataset(data, coords=coords, attrs=attrs)


def example(family: str, *, segments: int = 6, arms: tuple[str, ...] = ARMS, seed: int = 0) -> xr.Dataset:
    """Cells of unequal size for any family, one of them never seen, with one covariate."""
    rng = np.random.default_rng(seed)
    shape = (segments, len(arms))
    n = rng.integers(8, 60, shape)
    if family == "estimate":
        y = rng.normal(0.3, 0.5, (segments, len(arms) - 1))
        data = {"estimate": (("segment", "arm"), y), "se": (("segment", "arm"), rng.uniform(0.1, 0.6, y.shape))}
        found = _finished(data, segments=segments, arms=arms[1:], extra={}).assign_attrs(control="")
        return cell_table.check_cell_table(with_covariate(found, rng))
    n[-1, -1] = 0
    data, extra, attrs = _outcomes(family, n, rng)
    found = _finished(data, segments=segments, arms=arms, extra=extra).assign_attrs(attrs)
    return cell_table.check_cell_table(with_covariate(found, rng))


def with_covariate(cells: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """One number known of every segment."""
    values = rng.normal(40.0, 9.0, (cells.sizes["segment"], 1))
    return cells.assign(covariates=(("segment", "covariate"), values)).assign_coords(covariate=["age"])


def _outcomes(  # noqa: PLR0911 (a table of cases)
    family: str, n: np.ndarray, rng: np.random.Generator
) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    cell, there = ("segment", "arm"), n > 0
    match family:
        case "binomial":
            return {"n": (cell, n), "events": (cell, rng.binomial(n, 0.3))}, {}, {}
        case "normal":
            mean = np.where(there, rng.normal(1.0, 1.0, n.shape), np.nan)
            return (
                {"n": (cell, n), "mean": (cell, mean), "ss": (cell, rng.chisquare(np.maximum(n - 1, 1)) * there)},
                {},
                {},
            )
        case "mean":
            mean = np.where(there, rng.normal(1.0, 1.0, n.shape), np.nan)
            return {"mean": (cell, mean), "se": (cell, np.where(there, rng.uniform(0.2, 0.5, n.shape), np.nan))}, {}, {}
        case "poisson":
            exposure = n * rng.uniform(0.5, 2.0, n.shape)
            return {"events": (cell, rng.poisson(0.4 * exposure)), "exposure": (cell, exposure)}, {}, {}
        case "negative_binomial" | "ordinal":
            values = np.arange(9.0) if family == "negative_binomial" else np.array([1.0, 2.0, 3.0, 5.0])
            p = rng.dirichlet(np.full(len(values), 2.0), n.shape)
            return {"n": (cell, n), "histogram": ((*cell, "value"), rng.multinomial(n, p))}, {"value": values}, {}
        case "two_part":
            positive = rng.binomial(n, 0.4)
            some = positive > 0
            data = {"n": n, "positive": positive, "mean": np.where(there, rng.uniform(1, 3, n.shape) * some, np.nan),
                    "ss": n * 4.0 * some, "log_mean": np.where(some, rng.normal(1, 0.4, n.shape), np.nan),
                    "log_ss": np.where(positive > 1, rng.chisquare(np.maximum(positive - 1, 1)), 0.0)}  # fmt: skip
            return {name: (cell, values) for name, values in data.items()}, {}, {}
        case "piecewise_exponential":
            at_risk = n[..., None] * rng.uniform(1.0, 3.0, (*n.shape, 3))
            failures = rng.poisson(0.05 * at_risk * np.array([1.0, 0.6, 0.4]))
            data = {
                "n": (cell, n),
                "failures": ((*cell, "interval"), failures),
                "at_risk": ((*cell, "interval"), at_risk),
            }
            extra = {"interval": ["0-5", "5-10", "10-20"], "start": ("interval", [0.0, 5.0, 10.0]),
                     "end": ("interval", [5.0, 10.0, 20.0])}  # fmt: skip
            return data, extra, {"horizon": 12.0}
    raise AssertionError(family)
