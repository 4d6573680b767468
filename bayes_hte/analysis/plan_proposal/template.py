"""The plan that `init` writes without data: what is needed is empty, and every other form stands below as comment."""

TEMPLATE = """# A plan: what one experiment asks. docs/plan.md has every key; bayes-hte check says what is missing.

title = "A new experiment"
# question = "For whom does it work?"
model = "conversion"         # 0 or 1; others: metric, revenue, counts, rates, survival, ordered-scale, continuous

[data]
path = ""                    # FILL IN: .csv, .parquet, .duckdb, .sqlite, .xlsx, a folder, or - for standard input
# table = "visits"           # of a database, or the sheet of a workbook
# connection = "WAREHOUSE_URL"   # in place of path: the environment variable with the URL of a database, …
# query = "select …"             # … and what to read from it
outcome = ""                 # FILL IN: the column of the outcome; one row per unit
arm = ""                     # FILL IN: the column that says which variant a row belongs to
control = ""                 # FILL IN: the arm that the others are compared with
segments = []                # FILL IN: columns known before treatment, as in ["device", "customer"]
# shares = { old = 0.5, new = 0.5 }   # as planned: the checks of the data test it
# unit = "user"              # the checks say if one is in several arms
# cuped = "before"           # adjusts the mean for what was measured before treatment: for the model metric

[report]
# higher_is_better = false   # where the outcome is bad: deaths, cancellations, costs
# rope = 0.01                # the smallest effect that matters

# Other forms of data, in place of [data] above.
#
# One row per unit, with the time until an event (model = "survival"):
#   [data]
#   form = "times"
#   path = "times.csv"
#   time = "days"
#   event = "cancelled"
#   arm = "arm"
#   control = "old"
#   segments = ["plan"]
#
# One row per segment and arm:
#   [data]
#   form = "summary"
#   path = "summary.csv"
#   arm = "arm"
#   control = "old"
#   segments = ["device"]
#   n = "users"
#   events = "buyers"
#
# One row per segment, with columns for each arm:
#   [data]
#   form = "wide"
#   path = "wide.csv"
#   control = "old"
#   segments = ["device"]
#   arms.old = { n = "n_old", events = "events_old" }
#   arms.new = { n = "n_new", events = "events_new" }
#
# One row per segment, arm and value, with its number of units (model = "ordered-scale" or "counts"):
#   [data]
#   form = "levels"
#   path = "levels.csv"
#   arm = "arm"
#   control = "old"
#   segments = ["device"]
#   value = "stars"
#   count = "users"
#
# One row per segment, with a published effect and its standard error (model = "published-estimates"):
#   [data]
#   form = "estimates"
#   path = "estimates.csv"
#   segments = ["study"]
#   estimate = "effect"
#   se = "se"
#
# A table whose columns' names say what they hold:
#   [data]
#   form = "table"
#   path = "table.csv"
"""
"""A plan that is no TOML of a valid plan yet: `bayes-hte check` names each key that is empty."""
