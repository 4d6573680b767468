"""Write docs/plan.md from the schema of plans and from examples/forms; a test compares it with what is committed.

python docs/plan_page.py
"""

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # where this script is loaded by another one

from models_readme import write_data_table

from bayes_hte import Plan
from bayes_hte.cells.from_plan import MAKER_BY_FORM
from bayes_hte.spec.data_forms import DEFAULT_FORM, PLACE_KEYS
from bayes_hte.spec.files import build_json_schema

FORMS_FOLDER = HERE.parent / "examples" / "forms"
SHOWN_DATA_LINES = 5
TABLE_BY_HEADER = {
    "metrics": "PlannedMetric",
    "report": "Reporting",
    "decision": "Rule",
    "sampling": "Sampling",
    "privacy": "Privacy",
    "covariates": "SegmentTable",
}
CONDITION_BY_KEY = {
    "ship": "ShipCondition",
    "stop": "StopCondition",
    "equivalent": "EquivalenceCondition",
    "guardrail": "GuardrailCondition",
}
"""Tables inside of [decision]."""
NOTHING = "—"

HEAD = """# The plan file

A plan says what one experiment asks: where the data are, what their columns mean, which segments are compared, which
model is believed, and how effects are shown. It is a [TOML](https://toml.io) file; this page has all of its keys. An
unknown key is an error that names the known ones, so nothing stays at its default because of a spelling mistake.

```
bayes-hte check examples/forms/rows.toml    # validate plan, model and data, and say what is weak about them
bayes-hte run examples/forms/rows.toml      # report.html, effects.csv, summary.json and fit.nc in results/forms-rows/
```

Paths in a plan are relative to the folder of the plan, wherever the command runs. In an editor that knows JSON Schema
for TOML (Even Better TOML for VS Code, Taplo, Tombi), keys are completed, explained and checked while you type: write
the schema to a file once, and name the file in the plan's first line.

```
bayes-hte schema plan > plan.schema.json     # and "bayes-hte schema model" for model files
```

```toml
#:schema plan.schema.json
```

This page is generated from the same schema by `python docs/plan_page.py`. Its plans, and their data, are in
[examples/forms](../examples/forms).
"""

FORMS_INTRO = """## The data: `[data]`

`form` says what a row of the file is. Every form is also a function, with the keys as keywords
(`hte.cells.from_rows(…, cuped="pretest")`): what one takes, the other takes too.
"""

PLACES_INTRO = """### Where the data are

These keys mean the same in every form; [data files](data-files.md) shows one table in all of them. A plan holds no
password: a database server is reached by a URL in the environment, and `connection` names the variable.
"""

MODELS_INTRO = """## Which model, which columns

A model is named by `model`; its outcome family says what the data must hold. Where a table has no rows of units, its
columns are named in the form `"summary"`, `"wide"` or, if their names say what they hold, `"table"`.
[The models](../models/README.md) are explained on a page of their own.
"""


def write_page() -> str:
    """The whole page."""
    schema = build_json_schema(Plan)
    page = [HEAD, "## Keys at the top", "", *_write_keys(schema, schema), MODELS_INTRO, write_data_table("../models/")]
    page += [FORMS_INTRO, *_write_form_overview(schema)]
    rows = _find_form(DEFAULT_FORM, schema)
    places = {key: of_key for key, of_key in rows["properties"].items() if key in PLACE_KEYS}
    page += [PLACES_INTRO, *_write_keys(rows | {"properties": places}, schema)]
    for form in MAKER_BY_FORM:
        page += _write_form(form, schema)
    for header, name in TABLE_BY_HEADER.items():
        table = schema["$defs"][name]
        heading = f"[[{header}]]" if header == "metrics" else f"[{header}]"
        page += [f"## `{heading}`", "", table["description"].partition("\n\n")[0], "", *_write_keys(table, schema)]
        if header == "decision":
            page += _write_conditions(schema)
    return "\n".join(page).rstrip("\n") + "\n"


def _write_conditions(schema: dict[str, Any]) -> list[str]:
    lines = []
    for key, name in CONDITION_BY_KEY.items():
        condition = schema["$defs"][name]
        lines += [f"### Inside `{key}`", "", condition["description"], "", *_write_keys(condition, schema)]
    return lines


def _find_form(form: str, schema: dict[str, Any]) -> dict[str, Any]:
    (found,) = (table for table in schema["$defs"].values() if table["properties"].get("form", {}).get("const") == form)
    return dict(found)


def _write_form_overview(schema: dict[str, Any]) -> list[str]:
    lines = ["| `form` | a row of the file is | function |", "|---|---|---|"]
    for form, maker in MAKER_BY_FORM.items():
        meaning = _find_form(form, schema)["description"].removesuffix(".")
        lines.append(f'| [`"{form}"`](#form--{form}) | {meaning} | `hte.cells.{maker.__name__}` |')
    return [*lines, ""]


def _write_form(form: str, schema: dict[str, Any]) -> list[str]:
    table = _find_form(form, schema)
    own = {key: of_key for key, of_key in table["properties"].items() if key not in PLACE_KEYS}
    plan_path, data_path = FORMS_FOLDER / f"{form}.toml", FORMS_FOLDER / f"{form}.csv"
    with data_path.open(encoding="utf-8") as data_lines:
        first_lines = "".join(islice(data_lines, SHOWN_DATA_LINES))
    return [
        f"### form = {form}",
        "",
        table["description"],
        "",
        f"The first rows of [{form}.csv](../examples/forms/{form}.csv), and a plan for it, "
        f"[{form}.toml](../examples/forms/{form}.toml):",
        "",
        *_write_block("text", f"{first_lines}…\n"),
        *_write_block("toml", plan_path.read_text(encoding="utf-8")),
        *_write_keys(table | {"properties": own}, schema),
    ]


def _write_block(language: str, text: str) -> list[str]:
    return [f"```{language}", text.rstrip("\n"), "```", ""]


def _write_keys(table: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    lines = ["| key | type | if left out | meaning | example |", "|---|---|---|---|---|"]
    for key, of_key in table["properties"].items():
        cells = (f"`{key}`", _name_type(of_key, schema), _name_default(key, table, schema), of_key["description"])
        shown = [f"`{key} = {_write_toml(example)}`" for example in of_key.get("examples", ())]
        lines.append("| " + " | ".join(map(_escape, (*cells, "<br>".join(shown) or NOTHING))) + " |")
    return [*lines, ""]


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")


def _find_other_key(key: str, table: dict[str, Any], schema: dict[str, Any]) -> str | None:
    """Find the list of several questions that stands in for a key which a plan with one needs."""
    form = table["properties"].get("form", {}).get("const")
    for alternative in schema["allOf"]:
        if "anyOf" in alternative:
            keys = [each["required"][0] for each in alternative["anyOf"]]
            found = table is schema and key == keys[0]
        else:
            keys, of_form = alternative["if"]["required"], alternative["else"]["properties"]["data"]
            found = form in of_form["if"]["properties"]["form"]["enum"] and key in of_form["then"]["required"]
        if found:
            return f"`{keys[-1]}`"
    return None


def _name_default(key: str, table: dict[str, Any], schema: dict[str, Any]) -> str:
    if key in table.get("required", ()):
        return "**needed**"
    if other_key := _find_other_key(key, table, schema):
        return f"**needed**, or {other_key}"
    default = table["properties"][key].get("default")
    return NOTHING if default in (None, "") else f"`{_write_toml(default)}`"


def _name_type(of_key: dict[str, Any], schema: dict[str, Any]) -> str:
    """Name the type of a key in words, with its range."""
    if "const" in of_key or "enum" in of_key:
        return " or ".join(f"`{_write_toml(value)}`" for value in of_key.get("enum", [of_key.get("const")]))
    if "anyOf" in of_key:
        return ", or ".join(_name_type(member, schema) for member in of_key["anyOf"])
    match of_key.get("type", "table"):
        case "array":
            entries = of_key.get("prefixItems", [of_key.get("items")])
            count = f"{len(entries)} " if "prefixItems" in of_key else ""
            return f"list of {count}{_name_entries(entries[0], schema)}"
        case "object":
            return f"table of {_name_entries(of_key['additionalProperties'], schema)}"
        case "integer" | "number" as kind:
            return _name_range("whole number" if kind == "integer" else "number", of_key)
        case kind:
            return {"string": "text", "boolean": "`true` or `false`"}.get(kind, kind)


def _name_entries(of_entry: dict[str, Any], schema: dict[str, Any]) -> str:
    """Name what a list or a table holds, in the plural."""
    if "anyOf" in of_entry:
        return "one of these: " + _name_type(of_entry, schema)
    noun, *limits = _name_type(of_entry, schema).split(",")
    first_word, *others = noun.split(" of ")
    return ",".join([" of ".join([f"{first_word}s", *others]), *limits])


def _name_range(noun: str, of_key: dict[str, Any]) -> str:
    limits = {
        "exclusiveMinimum": "above {:,}", "minimum": "{:,} or more", "exclusiveMaximum": "below {:,}",
        "maximum": "{:,} or less",
    }  # fmt: skip
    said = [phrase.format(of_key[limit]) for limit, phrase in limits.items() if limit in of_key]
    return ", ".join([noun, *said])


def _write_toml(value: Any) -> str:
    """Write a value as TOML; long tables as inline ones."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_write_toml(entry)}" for key, entry in value.items()) + " }"
        case list() | tuple():
            return f"[{', '.join(map(_write_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)  # text, numbers, true and false are the same in both


if __name__ == "__main__":
    (HERE / "plan.md").write_text(write_page(), encoding="utf-8")
