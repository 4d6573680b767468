"""Write models/README.md from the model files; a test compares it with what is committed.

python docs/models_readme.py
"""

from pathlib import Path

from bayes_hte import read_model
from bayes_hte.model.text import describe, pymc_source
from bayes_hte.spec.family_rules import FAMILY_RULES
from bayes_hte.spec.files import find_models_folder, list_shipped_models

HEAD = """# Models: what we believe

One TOML file per model. To change what is believed, copy a file and edit it; no code needs to change, and a plan
names your copy by its path. The keys are closed: an unknown one is an error that names the known ones. Parameters
are named as in [PyMC](https://www.pymc.io). Every prior has its reason beside it in the file.

This page is generated from the files by `python docs/models_readme.py`. `bayes-hte show MODEL` prints the same for
any model, yours too.
"""
KEYS = """## Keys of a model file

| key | values |
|---|---|
| `family` | the kind of outcome, one of those in the table above |
| `pooling` | `partial`: segment effects share a prior; `none`: each segment alone; `complete`: one effect for all |
| `units` | `link` (default): priors on the link scale; `control_sd`: in SDs of the control's outcome over units |
| `unit_variance` | for `mean`: `per_arm` (default), one variance over units for the cells of an arm; `per_cell`, each cell's own |
| `[effect]` | `mean`: prior of the common effect; `between`: prior of the between-segment SD; and a structure, below |
| `[baseline]` | the same for the control's mean; `pooling = "none"` frees it; absent for `estimate`; no `mean` for `ordinal` |
| `[amount.effect]`, `[amount.baseline]` | the second part of `two_part`: the logarithm of positive outcomes |
| `[nuisance]` | `sigma` (`normal`, `two_part`), `alpha` (`negative_binomial`), `cutpoints` (`ordinal`), `hazards` (`piecewise_exponential`) |

How effects are pooled, keys of `[effect]`; all but `by` and `horseshoe` are solved by the exact engine:

| key | what it says |
|---|---|
| `by`, `by_between` | crossed dimensions `["device", "plan"]`, nested ones `["region", "region:district"]`, or all `["*"]`: levels have effects that add up; the prior of their SDs (also for `[baseline]`) |
| `level_between` | `{ device = … }`: a prior of its own for the SD between the levels of one dimension in `by` |
| `covariates`, `slope` | numbers known of whole segments, and the prior of the change per SD of them |
| `shape` | `student_t` with `nu`, or `horseshoe` with `slab`: a few segments unlike the others |
| `correlation` | `LKJ(eta)`: between a segment's baseline and its effect |
| `strata` | a dimension whose levels have between-segment SDs of their own |
| `shared_between` | `true`: one between-segment SD for all arms |

Distributions: `Normal(mu, sigma)`, `StudentT(nu, mu, sigma)`, `HalfNormal(sigma)`, `HalfStudentT(nu, sigma)`,
`Cauchy(alpha, beta)`, which is `StudentT` with `nu = 1`, `HalfCauchy(beta)`, `Exponential(lam or scale)`, `Gamma(alpha, beta or mu, sigma)`, `InverseGamma(alpha, beta)`,
`LogNormal(mu, sigma)`, `Uniform(lower, upper)`; `LKJ(eta)` for correlations.
"""


DATA = """## Which data a model needs

What a [plan](../docs/plan.md) says of its data; the functions of `hte.cells` have the same words as keywords.
"""


def write_data_table(models_folder: str = "") -> str:
    """The table of families, with their shipped models and the data that they need; links go to `models_folder`."""
    lines = ["| family | models | rows of units say besides | other forms name the columns |", "|---|---|---|---|"]
    models = {name: read_model(name).family for name in list_shipped_models()}
    for family, rules in FAMILY_RULES.items():
        links = [f"[`{name}`]({models_folder}{name}.toml)" for name, of_model in models.items() if of_model == family]
        columns = [
            f'`form = "{form}"`: ' + " or ".join(f"`{columns}`" for columns in alternatives)
            for form, alternatives in rules.columns_by_form.items()
        ]
        lines.append(f"| `{family}` | {', '.join(links)} | {rules.rows_keys or '—'} | {'<br>'.join(columns)} |")
    return "\n".join([*lines, ""])


def text() -> str:
    """The whole page."""
    paths = sorted(find_models_folder().glob("*.toml"))
    table = ["| model | for |", "|---|---|"]
    table += [f"| [`{path.stem}`](#{path.stem}) | {read_model(path.stem).title} |" for path in paths]
    return "\n".join([HEAD, *table, "", DATA, write_data_table(), KEYS, *(_section(path) for path in paths)])


def _section(path: Path) -> str:
    model = read_model(path.stem)
    return "\n".join(
        [
            f"## {path.stem}",
            "",
            f"{model.title}. File: [`{path.name}`]({path.name}).",
            "",
            *_block("text", describe.write_mathematics(model)),
            *(f"- {sentence}" for sentence in describe.describe_model(model)),
            "",
            "As PyMC, given the arrays of the cell table in long form:",
            "",
            *_block("python", [pymc_source.write_pymc_source(model)]),
        ]
    )


def _block(language: str, lines: list[str]) -> list[str]:
    return [f"```{language}", *lines, "```", ""]


if __name__ == "__main__":
    (find_models_folder() / "README.md").write_text(text(), encoding="utf-8")
