"""Plan and model files: closed schemas, errors that name the way out, and no code run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bayes_hte import Model, ModelError, Plan, PlanError, SpecError, read_model, read_plan
from bayes_hte.spec import Distribution, Pool, list_shipped_models
from bayes_hte.spec.data_forms import Rows
from bayes_hte.spec.distributions import is_positive
from bayes_hte.spec.files import MAX_FILE_BYTES, find_models_folder, hash_file, validate_content
from bayes_hte.spec.model import Effect

LAWS: TypeAdapter[Any] = TypeAdapter(Distribution)
NORMAL: dict[str, Any] = {"dist": "Normal", "mu": 0.0, "sigma": 1.0}
HALF: dict[str, Any] = {"dist": "HalfNormal", "sigma": 0.5}
POOL: dict[str, Any] = {"mean": NORMAL, "between": HALF}
PLAN: dict[str, Any] = {
    "title": "E-mail",
    "model": "conversion",
    "data": {"outcome": "visit", "arm": "arm", "control": "none", "segments": ["device"]},
}

VALID: dict[str, dict[str, Any]] = {
    "Normal": {"mu": -1.0, "sigma": 2.0},
    "StudentT": {"nu": 3.0, "mu": 0.5, "sigma": 2.0},
    "Cauchy": {"alpha": 0.5, "beta": 0.7},
    "HalfNormal": {"sigma": 0.5},
    "HalfStudentT": {"nu": 3.0, "sigma": 0.5},
    "HalfCauchy": {"beta": 0.5},
    "Exponential": {"lam": 2.0},
    "Gamma": {"alpha": 2.0, "beta": 3.0},
    "InverseGamma": {"alpha": 2.0, "beta": 3.0},
    "LogNormal": {"mu": -1.0, "sigma": 0.5},
    "Uniform": {"lower": -1.0, "upper": 2.0},
}
LOCATIONS = {"mu", "lower", "upper"}
EACH_PARAMETER = [(dist, name) for dist, given in VALID.items() for name in given]


def law(dist: str, **given: Any) -> Any:
    return LAWS.validate_python({"dist": dist, **given})


@pytest.mark.parametrize("dist", VALID)
def test_every_distribution_keeps_the_parameters_it_was_given(dist: str) -> None:
    assert law(dist, **VALID[dist]).model_dump(exclude_none=True) == {"dist": dist, **VALID[dist]}


@pytest.mark.parametrize(
    ("dist", "name"), [pair for pair in EACH_PARAMETER if pair[1] not in LOCATIONS and pair != ("Cauchy", "alpha")]
)
@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_scales_and_shapes_must_be_positive(dist: str, name: str, value: float) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        law(dist, **VALID[dist] | {name: value})


@pytest.mark.parametrize(("dist", "name"), EACH_PARAMETER)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "wide", None])
def test_parameters_must_be_finite_numbers(dist: str, name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        law(dist, **VALID[dist] | {name: value})


@pytest.mark.parametrize("dist", VALID)
def test_an_unknown_parameter_is_refused(dist: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        law(dist, **VALID[dist], location=0.0)


@pytest.mark.parametrize("dist", VALID)
def test_distributions_are_frozen(dist: str) -> None:
    found = law(dist, **VALID[dist])
    with pytest.raises(ValidationError, match="frozen"):
        setattr(found, next(iter(VALID[dist])), 3.0)


def test_an_unknown_distribution_names_the_known_ones() -> None:
    with pytest.raises(ValidationError, match=r"(?s)Laplace.*" + ".*".join(VALID)):
        law("Laplace", beta=1.0)


@pytest.mark.parametrize(
    ("dist", "given", "match"),
    [
        ("Uniform", {"lower": 1.0, "upper": 1.0}, "must be less than upper"),
        ("Uniform", {"lower": 2.0, "upper": 1.0}, "must be less than upper"),
        ("Exponential", {}, "exactly one of lam"),
        ("Exponential", {"lam": 1.0, "scale": 1.0}, "exactly one of lam"),
        ("Gamma", {}, "alpha and beta"),
        ("Gamma", {"alpha": 1.0}, "alpha and beta"),
        ("Gamma", {"alpha": 1.0, "sigma": 1.0}, "alpha and beta"),
        ("Gamma", {"alpha": 1.0, "beta": 1.0, "mu": 1.0, "sigma": 1.0}, "alpha and beta"),
        ("StudentT", {}, "Field required"),
        ("HalfCauchy", {}, "Field required"),
        ("InverseGamma", {}, "Field required"),
    ],
)
def test_parameters_that_contradict_or_are_missing_are_refused(dist: str, given: Any, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        law(dist, **given)


def test_gamma_means_the_same_by_shape_and_rate_as_by_mean_and_sd() -> None:
    assert law("Gamma", mu=2.0, sigma=0.5).shape_rate == pytest.approx((16.0, 8.0))
    assert law("Exponential", lam=4.0).mean == law("Exponential", scale=0.25).mean == 0.25


@pytest.mark.parametrize("dist", VALID)
def test_a_standard_deviation_takes_only_distributions_that_are_positive(dist: str) -> None:
    prior = law(dist, **VALID[dist])
    if dist in ("Normal", "StudentT", "Cauchy", "Uniform"):
        assert not is_positive(prior)
        with pytest.raises(ValidationError, match=f"between is a standard deviation; {dist} can be negative"):
            Pool(mean=law("Normal"), between=prior)
        with pytest.raises(ModelError, match=f"sigma is a standard deviation; {dist} can be negative"):
            Model.model_validate(stated("normal", nuisance={"sigma": {"dist": dist, **VALID[dist]}}))
    else:
        assert Pool(mean=law("Normal"), between=prior).between == prior


def test_a_uniform_from_zero_may_be_a_standard_deviation() -> None:
    assert Pool(mean=law("Normal"), between=law("Uniform", lower=0.0, upper=2.0))


def stated(family: str, **changes: Any) -> dict[str, Any]:
    """A valid model of a family as plain values; a change to None deletes."""
    content: dict[str, Any] = {"family": family, "effect": POOL}
    if family != "estimate":
        content["baseline"] = POOL
    if family == "normal":
        content["nuisance"] = {"sigma": HALF}
    return {key: value for key, value in (content | changes).items() if value is not None}


@pytest.mark.parametrize("family", ["binomial", "normal", "mean", "estimate"])
@pytest.mark.parametrize("pooling", ["partial", "none", "complete"])
def test_every_family_and_pooling_can_be_stated(family: str, pooling: str) -> None:
    model = Model.model_validate(stated(family, pooling=pooling))
    assert (model.family, model.pooling, model.units) == (family, pooling, "link")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (stated("binomial", baseline=None), r'family = "binomial" needs the table \[baseline\]'),
        (stated("normal", baseline=None), r"needs the table \[baseline\]"),
        (stated("mean", baseline=None), r"needs the table \[baseline\]"),
        (stated("estimate", baseline=POOL), r"delete the table \[baseline\]"),
        (stated("normal", nuisance=None), r"needs \[nuisance\]"),
        (stated("binomial", nuisance={"sigma": HALF}), r"delete the table \[nuisance\]"),
        (stated("estimate", nuisance={"sigma": HALF}), r"delete the table \[nuisance\]"),
        (stated("binomial", effect={"mean": NORMAL}), "needs a prior for effect.between"),
        (stated("binomial", baseline={"mean": NORMAL}), "needs a prior for baseline.between"),
        (stated("binomial", baseline=POOL | {"pooling": "none"}), "delete baseline.between"),
        (stated("binomial", units="control_sd"), 'family is "binomial"'),
        (stated("estimate", units="control_sd"), 'family is "estimate"'),
        (
            stated("mean", units="control_sd", baseline={"mean": {"dist": "LogNormal"}, "between": HALF}),
            "use Normal, StudentT, Cauchy or Uniform",
        ),
        (stated("poissonian"), "family"),
        (stated("poisson", baseline=None), r"needs the table \[baseline\]"),
        (stated("negative_binomial"), r"needs \[nuisance\] with a prior for alpha"),
        (stated("negative_binomial", nuisance={"sigma": HALF}), "a prior for alpha, and nothing else; given: sigma"),
        (stated("ordinal", nuisance={"cutpoints": NORMAL}), "cutpoints in place of baseline.mean: delete it"),
        (stated("ordinal", baseline={"between": HALF}, nuisance={"cutpoints": HALF}), "use Normal, StudentT or Cauchy"),
        (stated("two_part", nuisance={"sigma": HALF}), r"needs the tables \[amount.effect\]"),
        (stated("binomial", amount={"effect": POOL, "baseline": POOL}), r"has no \[amount\]"),
        (stated("binomial", baseline={"between": HALF}), "baseline.mean is missing"),
        (stated("binomial", pooling="complete", effect=POOL | {"by": ["device"]}), "effect.by says how .* partially"),
        (stated("binomial", effect=POOL | {"by": ["device", "device"]}), "by names a dimension twice"),
        (stated("binomial", effect=POOL | {"by_between": HALF}), "name them, or delete it"),
        (
            stated("binomial", effect=POOL | {"by": ["plan"], "level_between": {"device": HALF}}),
            "'device', which is not in by",
        ),
        (
            stated("binomial", effect=POOL | {"by": ["plan"], "level_between": {"plan": NORMAL}}),
            "level_between.plan is a standard deviation",
        ),
        (stated("binomial", effect=POOL | {"covariates": ["age"]}), "covariates and slope"),
        (stated("binomial", effect=POOL | {"nu": 4.0}), "nu is a parameter of shape"),
        (stated("binomial", effect=POOL | {"shape": "horseshoe"}), "needs slab"),
        (stated("binomial", effect=POOL | {"shape": "student_t", "correlation": {"dist": "LKJ"}}), "needs shape"),
        (stated("estimate", effect=POOL | {"correlation": {"dist": "LKJ"}}), "needs a baseline"),
        (stated("binomial", effect=POOL | {"by": ["*"], "strata": "device"}), "by goes with covariates"),
        (stated("binomial", effect=POOL | {"mean": {"dist": "LKJ"}}), "LKJ is a prior of a correlation"),
        (stated("binomial", pooling="some"), "pooling"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(content: dict[str, Any], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        Model.model_validate(content)


@pytest.mark.parametrize("mean", [{"dist": "Normal", "sd": 1.0}, {"dist": "Normal", "sigma": -1.0}, {"dist": "Cauchi"}])
def test_a_model_made_in_python_is_refused_in_the_words_of_its_file(tmp_path: Path, mean: dict[str, Any]) -> None:
    content = stated("estimate", effect={"mean": mean, "between": HALF})
    path = tmp_path / "model.toml"
    keys = ", ".join(f"{key} = {json.dumps(value)}" for key, value in mean.items())
    path.write_text(
        f'family = "estimate"\n[effect]\nmean = {{ {keys} }}\nbetween = {{ dist = "HalfNormal", sigma = 0.5 }}\n'
    )
    said = []
    for make in (lambda: Model(**content), lambda: Model.model_validate(content), lambda: read_model(path)):
        with pytest.raises(ModelError) as raised:
            make()
        said.append(str(raised.value).split(": ", 1)[1])
    assert len(set(said)) == 1


DATA_TOML = 'outcome = "visit"\narm = "arm"\ncontrol = "none"\nsegments = ["device"]\n'


@pytest.mark.parametrize(
    ("changes", "toml"),
    [
        ({"titel": "E-mail"}, 'titel = "E-mail"\n[data]\n' + DATA_TOML),
        ({"planned_effect": True}, "planned_effect = true\n[data]\n" + DATA_TOML),
        ({"data": {**PLAN["data"], "controlarm": "none"}}, "[data]\n" + DATA_TOML + 'controlarm = "none"\n'),
        ({"data": {**PLAN["data"], "segments": ["device", 7]}},
         "[data]\n" + DATA_TOML.replace('["device"]', '["device", 7]')),
        ({"report": {"scale": "percent"}}, "[data]\n" + DATA_TOML + '[report]\nscale = "percent"\n'),
        ({"sampling": {"draws": "many"}}, "[data]\n" + DATA_TOML + '[sampling]\ndraws = "many"\n'),
        ({"data": {"form": "estimates", "segments": ["s"], "estimate": "y", "se": "se"},
          "report": {"scale": "relative"}},
         '[data]\nform = "estimates"\nsegments = ["s"]\nestimate = "y"\nse = "se"\n[report]\nscale = "relative"\n'),
    ],
)  # fmt: skip
def test_a_plan_made_in_python_is_refused_in_the_words_of_its_file(
    tmp_path: Path, changes: dict[str, Any], toml: str
) -> None:
    content = PLAN | changes
    path = written(tmp_path, f'title = "E-mail"\nmodel = "conversion"\n{toml}', "plan.toml")
    said = []
    for make in (lambda: Plan(**content), lambda: Plan.model_validate(content), lambda: read_plan(path)):
        with pytest.raises(PlanError) as raised:
            make()
        said.append(str(raised.value).split(": ", 1)[1])
    assert len(set(said)) == 1
    assert "pydantic" not in said[0]


def test_models_and_plans_are_frozen() -> None:
    model, plan = read_model("conversion"), Plan.model_validate(PLAN)
    for value, name in ((model, "family"), (model.effect, "mean"), (plan, "title"), (plan.report, "scale")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(value, name, getattr(value, name))


MODEL_TOML = """
family = "binomial"
[effect]
mean = { dist = "Normal", sigma = 1.0 }
between = { dist = "HalfNormal", sigma = 0.5 }
[baseline]
mean = { dist = "Normal", sigma = 2.5 }
between = { dist = "HalfNormal", sigma = 1.0 }
"""
PLAN_TOML = """
title = "E-mail"
model = "conversion"
[data]
path = "users.csv"
outcome = "visit"
arm = "arm"
control = "none"
segments = ["device"]
[report]
scale = "absolute"
"""
READERS: dict[str, Any] = {"model": (read_model, MODEL_TOML, ModelError), "plan": (read_plan, PLAN_TOML, PlanError)}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Any:
    return READERS[request.param]


def written(folder: Path, text: str | bytes, name: str = "file.toml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("name", list_shipped_models())
def test_every_shipped_model_reads_and_says_what_it_is(name: str) -> None:
    model = read_model(name)
    assert model == read_model(find_models_folder() / f"{name}.toml")
    assert model.title
    assert model.pooling == "partial"


def test_the_shipped_models_are_these() -> None:
    assert list_shipped_models() == [
        "continuous", "conversion", "conversion-by-dimension", "conversion-correlated", "conversion-outliers", "counts",
        "metric", "ordered-scale", "published-estimates", "rates", "revenue", "survival",
    ]  # fmt: skip


def test_valid_files_read(tmp_path: Path, reader: Any) -> None:
    read, text, _ = reader
    assert read(written(tmp_path, text))
    assert read(str(written(tmp_path, text)))


def test_a_model_survives_writing_and_reading_as_json() -> None:
    for name in list_shipped_models():
        model = read_model(name)
        assert Model.model_validate_json(model.model_dump_json(exclude_none=True)) == model


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            MODEL_TOML.replace("family", "famly"),
            r"unknown key 'famly'; did you mean 'family'\? Known keys here: amount, baseline",
        ),
        (MODEL_TOML.replace("between", "betwen"), r"unknown key 'effect.betwen'; did you mean 'between'\?"),
        (MODEL_TOML.replace("sigma = 1.0 }", "sigmma = 1.0 }", 1), r"'effect.mean.sigmma'; did you mean 'sigma'\?.*mu"),
        (MODEL_TOML.replace("sigma = 0.5", "siqma = 0.5"), r"'effect.between.siqma'; did you mean 'sigma'\?"),
        (MODEL_TOML.replace("sigma = 2.5", "zzz = 2.5"), r"unknown key 'baseline.mean.zzz'. Known keys here: dist, mu"),
        (MODEL_TOML.replace('family = "binomial"', ""), "the key 'family' is missing"),
        (
            MODEL_TOML.replace('"binomial"', '"binomal"'),
            "family: .*'binomial', 'normal', 'mean', 'estimate', 'poisson'.* or 'piecewise_exponential'",
        ),
        (MODEL_TOML.replace('"HalfNormal"', '"HalfNorm"', 1), "effect.between: .*'HalfNorm'.*HalfStudentT"),
        (MODEL_TOML.replace("sigma = 0.5", "sigma = -0.5"), "effect.between.sigma: .*greater than 0"),
        (MODEL_TOML.replace("sigma = 0.5", "sigma = nan"), "effect.between.sigma: .*finite"),
        (MODEL_TOML.replace('dist = "HalfNormal", sigma = 0.5', "sigma = 0.5"), "effect.between: the key 'dist' is"),
        (
            MODEL_TOML.replace('{ dist = "HalfNormal", sigma = 0.5 }', "'HalfNormal'"),
            r'effect.between: should be a table, as in \{ dist = "Normal", sigma = 1.0 \}, not "HalfNormal"$',
        ),
        (MODEL_TOML.replace("[effect]", "[effect]\nby = 'device'"), r'effect.by: should be a list, as in \["device"\]'),
        (MODEL_TOML.replace("sigma = 0.5", "sigma = '0.5'"), 'effect.between.sigma: should be a number, not "0.5"$'),
        ("title = '" + "x" * 201 + "'\n" + MODEL_TOML, "title: should have 200 characters or fewer, not 201$"),
        ("", "the key 'family' is missing"),
    ],
)
def test_a_wrong_model_file_is_told_by_the_place_in_it(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        read_model(written(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "file.toml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (PLAN_TOML.replace("title", "titel"), r"unknown key 'titel'; did you mean 'title'\?"),
        (PLAN_TOML.replace("segments", "segment"), r"unknown key 'data.segment'; did you mean 'segments'\?"),
        (PLAN_TOML + "seed = 3\n", r"unknown key 'report.seed'; it belongs under \[sampling\]\. Known keys here: "),
        (PLAN_TOML.replace("[data]", "[data]\nrope = 0.1"), r"'data.rope'; it belongs under \[report\]"),
        (PLAN_TOML + "question = 'Q?'\n", r"'report.question'; it belongs at the top of the file"),
        (PLAN_TOML + "exploratory = true\n", "'report.exploratory'; it belongs at the top of the file"),
        (PLAN_TOML.replace("scale", "skale"), r"unknown key 'report.skale'; did you mean 'scale'\? .*rope"),
        (PLAN_TOML.replace('outcome = "visit"\n', ""), "the key 'data.outcome' is missing"),
        (PLAN_TOML.replace('["device"]', "[]"), r"data\.segments: "),
        (PLAN_TOML.replace('"absolute"', '"odds"'), "report.scale: .*'absolute', 'relative' or 'link'"),
        (PLAN_TOML + "ci_prob = 95\n", "report.ci_prob: .*less than 1"),
        (PLAN_TOML + "rope = -0.1\n", "report.rope: .*greater than 0"),
        (PLAN_TOML + "rope = inf\n", "report.rope: .*finite"),
        (PLAN_TOML + "[sampling]\ndraws = 10\n", "sampling.draws: .*400"),
        (PLAN_TOML + "[sampling]\nseed = -1\n", "sampling.seed: "),
        (PLAN_TOML + "[sampling]\nsampler = 'vi'\n", "sampling.sampler: .*'auto'"),
        (PLAN_TOML.replace("[data]", '[data]\nform = "tables"'), "data: .*'tables'"),
        (PLAN_TOML.replace("[data]", "[[data]]"), "data"),
        (PLAN_TOML.replace('outcome = "visit"', 'outcome = ""'), r'data.outcome: should hold text, not ""$'),
        (PLAN_TOML.replace('["device"]', "7"), r"data.segments: should be a column, or a list of columns, not 7$"),
        (PLAN_TOML.replace('["device"]', '""'), 'data.segments: should be a column, or a list of columns, not ""$'),
        (PLAN_TOML.replace('["device"]', "[]"), "data.segments: should have 1 entry or more, not 0$"),
        (PLAN_TOML.replace('["device"]', "[1]"), "data.segments, entry 1: should be text in quotes, not 1$"),
        (PLAN_TOML.replace('"absolute"', "['absolute']"), "report.scale: should be 'absolute', .*, not a list$"),
        (
            PLAN_TOML + "higher_is_better = 'perhaps'\n",
            'report.higher_is_better: should be true or false, not "perhaps"$',
        ),
        (PLAN_TOML + "[sampling]\ndraws = 'many'\n", 'sampling.draws: should be a whole number, not "many"$'),
        (PLAN_TOML + "[sampling]\nseed = 1.5\n", "sampling.seed: should be a whole number, not 1.5$"),
        ("sampling = 3\n" + PLAN_TOML, "sampling: should be a table of keys and values, not 3$"),
        (PLAN_TOML.replace("[data]", "[data]\ncap = [1, 2, 3]"), r"data.cap: should be a number, or a list of two, "),
        (
            PLAN_TOML.replace("[data]", "[data]\nrare = 'few'"),
            "data.rare: should be a number of rows, 2 or more, or such",
        ),
        (
            PLAN_TOML.replace("[data]", "[data]\nbins = { device = 'hour' }"),
            "data.bins.device: should be a number from 2",
        ),
        (PLAN_TOML.replace("[data]", "[data]\nbins = 4"), "data.bins: should be a table of keys and values, not 4$"),
        (
            PLAN_TOML.replace("[data]", "[data]\nshares = { a = 1 }"),
            "data.shares: should have 2 entries or more, not 1$",
        ),
        ("", "the key 'title' is missing; the key 'model' is missing; the key 'data' is missing"),
    ],
)
def test_a_wrong_plan_file_is_told_by_the_place_in_it(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(PlanError, match=match) as caught:
        read_plan(written(tmp_path, text))
    assert "\n" not in str(caught.value)


HOSTILE = {
    "no TOML": ("title = ", "is not valid TOML"),
    "a key twice": ("a = 1\na = 2", "is not valid TOML"),
    "binary": (b"\x00\x01\x02", "is not valid TOML"),
    "no UTF-8": ("title = 'é'".encode("latin-1"), "cannot be read: 'utf-8'"),
    "huge": (b"#" * (MAX_FILE_BYTES + 1), r"file\.toml has 1,000,001 bytes; a .* file is a page of text"),
    "nested beyond reason": ("a = " + "[" * 50_000, "is not valid TOML"),
    "a number beyond reason": ("a = " + "9" * 5_000, "is not valid TOML"),
    "python": ("__import__('os').system('true')", "is not valid TOML"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, reader: Any, case: str) -> None:
    read, _, error = reader
    content, match = HOSTILE[case]
    with pytest.raises(error, match=match):
        read(written(tmp_path, content))


def test_a_missing_file_names_its_neighbours(tmp_path: Path, reader: Any) -> None:
    read, text, error = reader
    with pytest.raises(error, match=r"the folder has no \.toml files"):
        read(tmp_path / "absent.toml")
    written(tmp_path, text, "b.toml")
    written(tmp_path, text, "a.toml")
    with pytest.raises(error, match=r"no file .*absent.toml; the folder has a.toml, b.toml$"):
        read(tmp_path / "absent.toml")


def test_a_folder_is_no_file(tmp_path: Path, reader: Any) -> None:
    read, _, error = reader
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(error, match="cannot be read"):
        read(tmp_path / "folder.toml")


def test_a_path_with_a_nul_is_refused(reader: Any) -> None:
    read, _, error = reader
    with pytest.raises(error):
        read("a\0.toml")


def test_an_unknown_model_name_hints_at_a_near_one() -> None:
    with pytest.raises(ModelError, match=r"no model 'conversions'; did you mean 'conversion'\? Shipped are"):
        read_model("conversions")
    with pytest.raises(ModelError, match=r"no model 'zzz'\. Shipped are .* a model of yours is a .toml file"):
        read_model("zzz")


def test_values_stay_text_whatever_they_look_like(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = f"__import__('pathlib').Path('{canary}').touch()"
    quoted = evil.replace("'", "\\u0027")
    plan = read_plan(
        written(tmp_path, PLAN_TOML.replace('"E-mail"', f'"{quoted}"').replace('"visit"', '"${HOME}{{1+1}}%(x)s"'))
    )
    model = read_model(written(tmp_path, f'notes = "{quoted}"\n' + MODEL_TOML))
    assert (plan.title, plan.data.outcome, model.notes) == (evil, "${HOME}{{1+1}}%(x)s", evil)
    assert not canary.exists()


OF_PYTHON = re.compile(
    r"\b(tuple|dict|dictionary|str|string|int|integer|bool|boolean|float|literal|instance|tag|input)\b"
)
ODD: list[Any] = [None, True, 3, -1.5, "text", "", [], ["text"], [1, "text"], {}, {"text": 1}, {"text": []}]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_plan_with_a_wrong_value_anywhere_is_told_in_words_of_toml(value: Any) -> None:
    for name in Rows.model_fields:
        problem = _problem(Plan, {**PLAN, "data": {**PLAN["data"], name: value}})
        assert not OF_PYTHON.search(problem.replace('"text"', "")), problem
    for name in Plan.model_fields:
        problem = _problem(Plan, {**PLAN, name: value})
        assert not OF_PYTHON.search(problem), problem


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_model_with_a_wrong_value_anywhere_is_told_in_words_of_toml(value: Any) -> None:
    for name in Model.model_fields:
        problem = _problem(Model, {**stated("normal"), name: value})
        assert not OF_PYTHON.search(problem), problem
    for name in Effect.model_fields:
        problem = _problem(Model, stated("normal", effect={**POOL, name: value}))
        assert not OF_PYTHON.search(problem), problem


def _problem(kind: type[Any], content: dict[str, Any]) -> str:
    try:
        validate_content(content, kind, SpecError, error_prefix="file")
    except SpecError as error:
        return str(error)
    return ""


def test_data_are_rows_unless_the_plan_says_otherwise() -> None:
    assert Plan.model_validate(PLAN).data.form == "rows"
    summary = {**PLAN, "data": {"form": "summary", **PLAN["data"], "n": "n", "events": "e"}}
    assert Plan.model_validate(summary).data.form == "summary"
    estimates = {**PLAN, "data": {"form": "estimates", "segments": ["s"], "estimate": "y", "se": "se"}}
    assert Plan.model_validate(estimates).data.form == "estimates"


def test_published_estimates_cannot_be_reported_relative_to_the_control() -> None:
    data = {"form": "estimates", "segments": ["s"], "estimate": "y", "se": "se"}
    with pytest.raises(PlanError, match="needs the control's mean"):
        Plan.model_validate({**PLAN, "data": data, "report": {"scale": "relative"}})


def test_editors_get_a_closed_json_schema() -> None:
    for kind, required in ((Plan, {"title", "model", "data"}), (Model, {"family", "effect"})):
        found = kind.model_json_schema()
        assert found["additionalProperties"] is False
        assert set(found["required"]) == required
        assert all(part["additionalProperties"] is False for part in found["$defs"].values())


def test_a_files_hash_is_of_its_bytes(tmp_path: Path) -> None:
    # SHA-256 of "abc": FIPS 180-4, example B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_file(written(tmp_path, b"abc")) == expected


def test_spec_errors_are_one_tree() -> None:
    assert issubclass(ModelError, SpecError)
    assert issubclass(PlanError, SpecError)
    assert issubclass(SpecError, ValueError)


@pytest.mark.parametrize("sigma", ["1", True])
def test_text_and_booleans_are_no_numbers_of_a_prior(sigma: object) -> None:
    with pytest.raises(ModelError, match="should be a number"):
        Model.model_validate(
            {"family": "estimate", "pooling": "none", "effect": {"mean": {"dist": "Normal", "sigma": sigma}}}
        )
