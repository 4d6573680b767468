"""`DataTable`: the forms in which a plan's data may come, one closed table of keys each.

The description and the examples of a key stand in its field only: the page of the documents, the JSON Schema for
editors and the messages on wrong values are all made of them.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from bayes_hte._support.validation import is_address
from bayes_hte.spec.error_messages import format_as_toml

NonEmptyText = Annotated[str, Field(min_length=1)]
# Strict, because pydantic otherwise takes true for 1 and "0.5" for 0.5: neither is what was meant.
FiniteNumber = Annotated[float, Field(strict=True, allow_inf_nan=False)]
WholeNumber = Annotated[int, Field(strict=True)]
TrueOrFalse = Annotated[bool, Field(strict=True)]


def expect_one_of(expected_values: str) -> WrapValidator:
    """State once which values a key may have, where each member of a union would explain why it is not met."""

    def check_value(toml_value: Any, validate_value: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate_value(toml_value)
        except ValidationError:  # pydantic's own report has a sentence for each member of the union
            raise ValueError(f"should be {expected_values}, not {format_as_toml(toml_value)}") from None

    return WrapValidator(check_value)


def _list_single_name(toml_value: Any) -> Any:
    # One column needs no brackets, in a plan as in Python.
    if isinstance(toml_value, str) and toml_value:
        return [toml_value]
    if not isinstance(toml_value, list | tuple):
        raise ValueError(f"should be a column, or a list of columns, not {format_as_toml(toml_value)}")
    return toml_value


_NameList = Annotated[tuple[NonEmptyText, ...], Field(min_length=1)]
ColumnNames = Annotated[_NameList, BeforeValidator(_list_single_name, json_schema_input_type=NonEmptyText | _NameList)]
"""One column as text, or several as a list."""

# Aliases of values that several tables of a plan share, or that are unions: their message names all members at once.
_OutcomeCap = Annotated[
    FiniteNumber | tuple[FiniteNumber, FiniteNumber], expect_one_of("a number, or a list of two, the smaller first")
]
CountFromTwo = Annotated[WholeNumber, Field(ge=2)]
_RareThreshold = Annotated[
    CountFromTwo | dict[NonEmptyText, CountFromTwo],
    expect_one_of("a number of rows, 2 or more, or such numbers by dimension, as in { country = 50 }"),
]
_BinDefinition = Annotated[
    Annotated[WholeNumber, Field(ge=2, le=100)]
    | Literal["day", "week", "month", "quarter", "year"]
    | Annotated[tuple[FiniteNumber, ...], Field(min_length=1, max_length=99)],
    expect_one_of(
        'a number from 2 to 100, a list of cuts such as [18, 35, 65], or "day", "week", "month", "quarter", "year"'
    ),
]

# The column of arms may hold 0 and 1, or true and false: Python takes such a label as it is, and so does a plan.
_ArmLabel = Annotated[
    NonEmptyText | TrueOrFalse | WholeNumber | FiniteNumber, expect_one_of("the name of an arm, as the data write it")
]

# Keys that mean the same in several forms.
_OUTCOME_NAME = Field(description="What was measured, in words, for tables and the report.", examples=["bought"])
_ARM_COLUMN = Field(description="Column that says which variant a row belongs to.", examples=["arm"])
_CONTROL_ARM = Field(
    description="The arm that the others are compared with, as the data write it.", examples=["old", 0]
)
_SEGMENT_COLUMNS = Field(
    description="Columns known before treatment whose combinations are the segments: the dimensions.",
    examples=[["device", "customer"], "device"],
)
StatedLevels = Annotated[
    Annotated[tuple[NonEmptyText, ...], Field(min_length=2)]
    | Annotated[tuple[FiniteNumber, ...], Field(min_length=2)]
    | None,
    expect_one_of('a list of two or more answers, the lowest first, as in ["bad", "fair", "good"]'),
    Field(
        description="All answers that could be given, the lowest first: words, or numbers. One that nobody chose is "
        "kept. If nothing is said, the numbers that occur; words need an order.",
        examples=[["bad", "fair", "good"]],
    ),
]
OutcomeName = Annotated[NonEmptyText, _OUTCOME_NAME]
ArmColumn = Annotated[NonEmptyText, _ARM_COLUMN]
OptionalArmColumn = Annotated[NonEmptyText | None, _ARM_COLUMN]
ControlArm = Annotated[_ArmLabel, _CONTROL_ARM]
SegmentColumns = Annotated[ColumnNames, _SEGMENT_COLUMNS]
SegmentCovariates = Annotated[
    ColumnNames | None,
    Field(
        description="Columns of numbers known of each segment as a whole, the same in all of its rows: for models with "
        "`covariates`.",
        examples=[["beds"], "beds"],
    ),
]
PopulationSize = Annotated[
    NonEmptyText | None,
    Field(
        description="Column of what each row stands for in the population, where that is not its number of units or "
        "exposure: people where units are clusters, views of a mean per view. Averages over segments count each by it.",
        examples=["pupils"],
    ),
]
ArmShares = Annotated[
    Annotated[dict[NonEmptyText, Annotated[FiniteNumber, Field(gt=0)]], Field(min_length=2)] | None,
    Field(
        description="Planned share of the units by arm, or numbers in proportion to them: what the checks of the data "
        "hold the arms to.",
        examples=[{"old": 0.5, "new": 0.5}],
    ),
]
DropMissing = Annotated[
    TrueOrFalse,
    Field(
        description="Leave out rows in which a number or the arm is missing, and say how many; otherwise they are an "
        "error.",
        examples=[True],
    ),
]
FoldLabels = Annotated[
    TrueOrFalse,
    Field(
        description="Take labels of arms and segments that differ only in case, spaces or Unicode form (`new`, `New `) "
        "for one, and say which; otherwise they are different, and the checks say so.",
        examples=[True],
    ),
]
DimensionBins = Annotated[
    dict[NonEmptyText, _BinDefinition] | None,
    Field(
        description="By dimension: where to cut its numbers (a bin includes its lower end), into how many bins of "
        'about equal size, or, for dates, `"day"`, `"week"`, `"month"`, `"quarter"` or `"year"`.',
        examples=[{"age": [18, 35, 65]}, {"age": 4}, {"day": "week"}],
    ),
]


# What is said of a column of units: the keys of [data] with rows, and of [[metrics]].
OutcomeColumn = Annotated[
    NonEmptyText,
    Field(description="Column of the outcome: numbers, or true and false, or 0 and 1.", examples=["bought"]),
]
StatisticKind = Annotated[
    Literal["mean", "histogram", "two_part"] | None,
    Field(
        description="What to keep of the outcome: its `mean` (if nothing is said), the units by value (`histogram`: "
        "counts, ratings), or the share above 0 and the logarithms above it (`two_part`: revenue).",
        examples=["two_part"],
    ),
]
ExposureColumn = Annotated[
    NonEmptyText | None,
    Field(
        description="Column of the time, visits or area over which the outcome counts events: makes rates.",
        examples=["hours"],
    ),
]
DenominatorColumn = Annotated[
    NonEmptyText | None,
    Field(
        description="Column that the outcome is divided by: the sum of one over the sum of the other.",
        examples=["views"],
    ),
]
WeightsColumn = Annotated[
    NonEmptyText | None,
    Field(description="Column that says how many units a row stands for.", examples=["weight"]),
]
ClusterColumn = Annotated[
    NonEmptyText | None,
    Field(
        description="Column that names what was assigned to an arm, if that is not the row: a household, a school, a "
        "user with several visits.",
        examples=["school"],
    ),
]
CupedColumns = Annotated[
    ColumnNames | None,
    Field(
        description="Columns of numbers measured before treatment that the mean is adjusted for.",
        examples=["pretest", ["pretest", "age"]],
    ),
]
OutcomeCap = Annotated[
    _OutcomeCap | None,
    Field(
        description="Largest outcome, or smallest and largest; what is beyond counts as this.",
        examples=[100, [0, 100]],
    ),
]
OutcomeCapQuantiles = Annotated[
    _OutcomeCap | None,
    Field(description="The same, as quantiles of all outcomes together.", examples=[0.99, [0.01, 0.99]]),
]
RareLevels = Annotated[
    _RareThreshold | None,
    Field(
        description="Levels with fewer rows than this form the level (other), in all dimensions or by dimension.",
        examples=[50, {"country": 50}],
    ),
]
UnitColumn = Annotated[
    NonEmptyText | None,
    Field(
        description="Column that names the unit: units with several rows, or in several arms, are reported.",
        examples=["user"],
    ),
]
BalanceColumns = Annotated[
    ColumnNames | None,
    Field(
        description="Columns of numbers measured before treatment: it is reported if they differ between the arms.",
        examples=["age", ["age", "visits_before"]],
    ),
]


def _describe_column(meaning: str, example: str) -> Any:
    """Describe the key of a column that may be left out."""
    return Field(default=None, description=meaning, examples=[example])


DEFAULT_FORM = "rows"
"""What data are that do not say their form: most plans have rows."""


class PlanTable(BaseModel):
    """Base of the tables of a plan: closed, so that a misspelt key is an error and nothing stays at its default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _refuse_address(path: str | None) -> str | None:
    """Refuse a path that is an address, without showing it: what a plan holds is written into reports."""
    if path is not None and is_address(path):
        raise ValueError(
            "the data are given as an address or a connection, which may hold a password (so it is not shown); put the "
            "URL into an environment variable, name that as data.connection, and say what to read as data.query"
        )
    return path


def _check_variable(name: Any) -> Any:
    """Refuse what is no name of an environment variable, without showing it: most often it is the URL itself."""
    if not isinstance(name, str) or re.search(_VARIABLE_PATTERN, name) is None:
        raise ValueError(
            "should be the name of an environment variable that holds the URL, such as WAREHOUSE_URL, and not the URL "
            "itself (what stands there is not shown, as it may hold a password)"
        )
    return name


_PatternedText = Annotated[str, Field(pattern=_VARIABLE_PATTERN)]
_VariableName = Annotated[str, BeforeValidator(_check_variable, json_schema_input_type=_PatternedText)]


class DataPlace(PlanTable):
    """Where the data of any form are, and how a text file of them is written."""

    form: str = Field(description="What a row of the file is.")
    path: Annotated[NonEmptyText, AfterValidator(_refuse_address)] | None = Field(
        default=None,
        description="File with the data, or a pattern of several: text (.csv, .tsv, .txt, also .gz), Parquet, DuckDB, "
        "SQLite, Excel with the extra; a folder of text or Parquet files; `-` for standard input. Relative to the "
        "folder of the plan. May be left to `--data`.",
        examples=["checkout.csv", "days/2026-03-*.parquet"],
    )
    table: NonEmptyText | None = Field(
        default=None,
        description="Table or view of a database, sheet of a workbook; needed where there are several.",
        examples=["visits"],
    )
    query: NonEmptyText | None = Field(
        default=None,
        description="One SELECT in place of `table`: of a DuckDB or SQLite file, or of a server by `connection`. Data "
        "are only read.",
        examples=["select device, arm, bought from visits where day < '2026-03-15'"],
    )
    # The pattern is for editors: what it says of a wrong value would quote it.
    connection: _VariableName | None = Field(
        default=None,
        description="In place of `path`: name of the environment variable that holds the URL of a database, which "
        "carries out the query. The URL itself is never written down.",
        examples=["WAREHOUSE_URL"],
    )
    encoding: NonEmptyText | None = Field(
        default=None,
        description="Encoding of a text file, where it is neither UTF-8 nor UTF-16 with its mark.",
        examples=["latin-1", "windows-1252"],
    )
    decimal: Literal[".", ","] | None = Field(
        default=None,
        description="The mark of decimals in a text file. Where it is not stated a comma is taken for one, with a "
        "note, if nothing else can be meant.",
        examples=[","],
    )

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if self.path is not None and self.connection is not None:
            raise ValueError("the data are at data.path or behind data.connection; leave one of them out")
        if self.table is not None and self.query is not None:
            raise ValueError("table names a whole table, and query chooses the rows itself; leave one of them out")
        return self


PLACE_KEYS = frozenset(DataPlace.model_fields) - {"form"}
"""The keys of [data] that say where the data are and how a file is written."""


class Rows(DataPlace):
    """One row per unit; what is meant if `form` is left out."""

    form: Literal["rows"] = Field(default="rows", description="One row per unit; may be left out.")
    outcome: OutcomeColumn
    arm: ArmColumn
    control: ControlArm
    segments: SegmentColumns
    drop_missing: DropMissing = False
    metric: StatisticKind = None
    levels: StatedLevels = None
    exposure: ExposureColumn = None
    denominator: DenominatorColumn = None
    weights: WeightsColumn = None
    cluster: ClusterColumn = None
    cuped: CupedColumns = None
    cap: OutcomeCap = None
    cap_quantile: OutcomeCapQuantiles = None
    bins: DimensionBins = None
    rare: RareLevels = None
    unit: UnitColumn = None
    balance: BalanceColumns = None
    fold_labels: FoldLabels = False
    shares: ArmShares = None


class Times(DataPlace):
    """One row per unit: the time until an event, or until the unit was last seen."""

    form: Literal["times"] = Field(
        default="times", description="One row per unit, with the time until an event or until it was last seen."
    )
    outcome: Annotated[NonEmptyText, Field(description="What the event is, in words.", examples=["cancelled"])] = (
        "event"
    )
    time: NonEmptyText = Field(
        description="Column of the time from the start until the event, or until the unit was last seen; above 0.",
        examples=["days"],
    )
    event: NonEmptyText = Field(
        description="Column that is 1 if the event was seen, 0 if the unit was last seen without it.",
        examples=["cancelled"],
    )
    arm: ArmColumn
    control: ControlArm
    segments: SegmentColumns
    drop_missing: DropMissing = False
    breaks: tuple[Annotated[FiniteNumber, Field(gt=0)], ...] | None = Field(
        default=None,
        description="Times at which the hazard may change; if nothing is said, those that make four intervals with "
        "about equally many events.",
        examples=[[7, 30, 90]],
    )
    horizon: Annotated[FiniteNumber, Field(gt=0)] | None = Field(
        default=None,
        description="Time by which the chance of the event is compared; if nothing is said, the time by which half of "
        "the units have had it, or the last event up to which a tenth of every arm was followed, whichever is earlier.",
        examples=[90],
    )
    bins: DimensionBins = None
    fold_labels: FoldLabels = False
    shares: ArmShares = None


class Levels(DataPlace):
    """One row per segment, arm and value of the outcome, with the number of units that have it."""

    form: Literal["levels"] = Field(
        default="levels", description="One row per segment, arm and value of the outcome, with its number of units."
    )
    outcome: OutcomeName = "outcome"
    arm: ArmColumn
    control: ControlArm
    segments: SegmentColumns
    value: NonEmptyText = Field(description="Column of the value of the outcome.", examples=["stars"])
    count: NonEmptyText = Field(description="Column of the number of units that have the value.", examples=["users"])
    levels: StatedLevels = None
    fold_labels: FoldLabels = False
    shares: ArmShares = None


class Summary(DataPlace):
    """One row per segment and arm, with one of the sets of columns in the table above."""

    form: Literal["summary"] = Field(default="summary", description="One row per segment and arm.")
    outcome: OutcomeName = "outcome"
    arm: ArmColumn
    control: ControlArm
    segments: SegmentColumns
    n: NonEmptyText | None = _describe_column("Column of the number of units.", "users")
    events: NonEmptyText | None = _describe_column(
        "Column of the number of units with the event, or of events.", "buyers"
    )
    non_events: NonEmptyText | None = _describe_column("Column of the number of units without the event.", "others")
    mean: NonEmptyText | None = _describe_column("Column of the mean outcome.", "mean_spent")
    sd: NonEmptyText | None = _describe_column(
        "Column of the standard deviation of the outcome over units.", "sd_spent"
    )
    total: NonEmptyText | None = _describe_column("Column of the sum of the outcomes.", "spent")
    sum_squares: NonEmptyText | None = _describe_column("Column of the sum of the squared outcomes.", "spent_squared")
    se: NonEmptyText | None = _describe_column("Column of the standard error of the mean.", "se_spent")
    exposure: NonEmptyText | None = _describe_column(
        "Column of the time, visits or area over which the events were counted.", "hours"
    )
    positive: NonEmptyText | None = _describe_column("Column of the number of units with an outcome above 0.", "payers")
    log_mean: NonEmptyText | None = _describe_column(
        "Column of the mean logarithm of outcomes above 0.", "mean_log_spent"
    )
    log_sd: NonEmptyText | None = _describe_column(
        "Column of the standard deviation of the logarithm of outcomes above 0.", "sd_log_spent"
    )
    size: PopulationSize = None
    covariates: SegmentCovariates = None
    fold_labels: FoldLabels = False
    shares: ArmShares = None


# The statistics that a table can hold of one arm: the keys of [data.arms.<arm>].
ArmRole = Literal[
    "n", "events", "non_events", "mean", "sd", "total", "sum_squares", "se", "exposure", "positive", "log_mean",
    "log_sd", "size",
]  # fmt: skip


class Wide(DataPlace):
    """One row per segment, with columns for each arm."""

    form: Literal["wide"] = Field(default="wide", description="One row per segment, with columns for each arm.")
    outcome: OutcomeName = "outcome"
    arms: Annotated[dict[NonEmptyText, dict[ArmRole, NonEmptyText]], Field(min_length=2)] = Field(
        description="For each arm, which column holds what: the keys are those of the statistics in the form "
        '`"summary"`. Reads best as one line per arm: `arms.old = { n = "n_old", events = "events_old" }`.',
        examples=[{"old": {"n": "n_old", "events": "events_old"}, "new": {"n": "n_new", "events": "events_new"}}],
    )
    control: ControlArm
    segments: SegmentColumns
    covariates: SegmentCovariates = None
    fold_labels: FoldLabels = False
    shares: ArmShares = None


class Table(DataPlace):
    """A table of any form but rows of units, whose columns' names leave no doubt; what is said here is not guessed."""

    form: Literal["table"] = Field(
        default="table",
        description="A table with a row per segment, or per segment and arm, whose columns' names say what they hold.",
    )
    outcome: Annotated[NonEmptyText | None, _OUTCOME_NAME] = None
    arm: OptionalArmColumn = None
    control: Annotated[_ArmLabel | None, _CONTROL_ARM] = None
    segments: Annotated[ColumnNames | None, _SEGMENT_COLUMNS] = None
    fold_labels: FoldLabels = False
    shares: ArmShares = None


class Estimates(DataPlace):
    """One row per segment: a published effect, and its standard error or the covariance of all."""

    form: Literal["estimates"] = Field(
        default="estimates", description="One row per segment, with an estimated effect and its uncertainty."
    )
    outcome: OutcomeName = "effect"
    segments: SegmentColumns
    estimate: NonEmptyText | None = _describe_column("Column of the estimated effect.", "log_odds_ratio")
    se: NonEmptyText | None = _describe_column("Column of the standard error of the estimate.", "se")
    ratio: NonEmptyText | None = _describe_column(
        "Column of hazard, odds or risk ratios, in place of `estimate`: analysed as logarithms. Needs both limits.",
        "hazard_ratio",
    )
    lower: NonEmptyText | None = _describe_column(
        "Column of the lower limit of the confidence interval of the estimate or ratio, in place of `se`.", "ci_low"
    )
    upper: NonEmptyText | None = _describe_column("Column of the upper limit of that interval.", "ci_high")
    level: Annotated[FiniteNumber, Field(ge=0.5, lt=1)] | None = Field(
        default=None, description="Confidence level of the limits; 0.95 if nothing is said.", examples=[0.9]
    )
    covariance: NonEmptyText | None = _describe_column(
        "CSV or Parquet file with the square matrix of the estimates' covariances; its header names the "
        "segments. Relative to the folder of the plan.",
        "covariance.csv",
    )
    arm: OptionalArmColumn = None
    n: NonEmptyText | None = _describe_column("Column of the number of units behind the estimate.", "n")
    size: PopulationSize = None
    covariates: SegmentCovariates = None
    fold_labels: FoldLabels = False

    @model_validator(mode="after")
    def _check_uncertainty(self) -> Self:
        # Both may be stated: the covariance then says how estimates depend, and its diagonal is checked against se.
        if self.se is None and self.covariance is None and self.lower is None and self.upper is None:
            raise ValueError(
                "estimates need their uncertainty: name the column of standard errors as se, those of limits as lower "
                "and upper, or covariance"
            )
        if (self.estimate is None) == (self.ratio is None):
            raise ValueError("estimates are in one column: name it as estimate, or as ratio")
        return self


# `form` tells which table [data] is, so that errors speak of its keys only.
_FORM_CLASSES = (Rows, Summary, Wide, Table, Levels, Times, Estimates)
DataTable = Annotated[Rows | Summary | Wide | Table | Levels | Times | Estimates, Field(discriminator="form")]
DATA_KEYS = frozenset(key for form_class in _FORM_CLASSES for key in form_class.model_fields)
"""The keys of [data] in any form: but for form, shares and where the data are, the keywords of `hte.cells`."""
