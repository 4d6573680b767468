"""Machine code of PyMC models, kept for the next data of the same structure: compiling takes longer than sampling.

model      whatever is a `pm.Data` is exchangeable; all else, lengths of dims included, is the structure
hoisted    what the log density computes from data alone is computed once per data set, not once per step, and
           reaches the machine code as one vector: nutpie's compile time grows with the number of arrays
"""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pymc as pm
    from nutpie.compile_pymc import CompiledPyMCModel
    from pytensor.graph import Variable
    from pytensor.tensor.variable import TensorVariable

ENTRIES = 4
"""Structures that are kept: a fit, its completely and not pooled companions, and one more."""
HOISTED = "__hoisted"

Values = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One structure.

    Attributes
    ----------
    machine : CompiledPyMCModel
        For the data it was compiled with.
    model : pm.Model
        A private copy, dims frozen, whose data are set before anything is computed from them.
    hoist : callable
        () -> what the log density needs of the data of `model`, as arrays.
    shapes : list of tuple
        Of these arrays.
    lock : threading.Lock
        Held while the data of `model` are set and used.
    """

    machine: "CompiledPyMCModel"
    model: "pm.Model"
    hoist: Callable[[], list[NDArray[Any]]]
    shapes: list[tuple[int, ...]]
    lock: threading.Lock


_kept: OrderedDict[Hashable, Entry] = OrderedDict()
_lock = threading.Lock()


def machine(model: "pm.Model") -> "CompiledPyMCModel":
    """What nutpie samples: compiled now or earlier, with this model's data, labels and initial points.

    Results do not depend on what was compiled earlier. Safe to call from several threads.
    """
    values = {str(var.name): np.asarray(var.get_value()) for var in model.data_vars}
    key = signature(model)
    with _lock:
        found = _with_data(_kept[key], values, model) if key in _kept else None
        if found is None:
            _kept[key] = _compile(model)
            found = _with_data(_kept[key], values, model)
        _kept.move_to_end(key)
        while len(_kept) > ENTRIES:
            _kept.popitem(last=False)
    if found is None:
        raise AssertionError("what is computed from the data of a model has no fixed shape")
    return found


def forget() -> None:
    """Drop every compiled model."""
    with _lock:
        _kept.clear()


def _compile(model: "pm.Model") -> Entry:
    import nutpie
    import pytensor
    from pymc.model.transform.optimization import freeze_dims_and_data
    from pytensor.compile.mode import Mode

    private = freeze_dims_and_data(model, data=[])
    logp, frontier = hoisted(private)
    hoist = pytensor.function([], frontier, mode=Mode(linker="py", optimizer="fast_compile"))
    arrays = [np.asarray(array) for array in hoist()]
    # nutpie asks the model itself for its log density; the copy is ours alone.
    private.logp = lambda: _from_vector(logp, frontier, arrays)
    return Entry(nutpie.compile_pymc_model(private), private, hoist, [a.shape for a in arrays], threading.Lock())


def hoisted(model: "pm.Model") -> "tuple[TensorVariable, list[TensorVariable]]":
    """The log density, and where in its graph data end and parameters begin."""
    from pytensor.graph import rewrite_graph
    from pytensor.graph.traversal import toposort
    from pytensor.tensor.variable import TensorVariable

    # The same rewrites that nutpie starts with: they decide what depends on data alone.
    rewrites = ["canonicalize", "stabilize"]
    if not model.check_bounds:
        rewrites.append("local_remove_check_parameter")
    logp = rewrite_graph(model.logp(), include=rewrites)
    moving, given = set(model.value_vars), set(model.data_vars)
    frontier: dict[TensorVariable, None] = {}
    for node in toposort([logp]):
        # A vector holds tensors only: what is made of data in another type counts as moving.
        tensors = all(isinstance(var, TensorVariable) for var in node.outputs)
        if not moving.isdisjoint(node.inputs) or (not tensors and not given.isdisjoint(node.inputs)):
            moving.update(node.outputs)
            frontier |= {var: None for var in node.inputs if var in given}
        elif not given.isdisjoint(node.inputs):
            given.update(node.outputs)
    return logp, list(frontier)


def _from_vector(
    logp: "TensorVariable", frontier: "list[TensorVariable]", arrays: list[NDArray[Any]]
) -> "TensorVariable":
    """The same log density with everything at the frontier read from one shared vector."""
    import pytensor
    from pytensor.graph.replace import clone_replace

    if not frontier:
        return logp
    flat = _flat(arrays)
    vector, at, replace = pytensor.shared(flat, name=HOISTED, shape=flat.shape), 0, {}
    for var, array in zip(frontier, arrays, strict=True):
        replace[var] = vector[at : at + array.size].reshape(array.shape).astype(var.dtype)
        at += array.size
    return clone_replace(logp, replace, rebuild_strict=False)


def _flat(arrays: list[NDArray[Any]]) -> NDArray[np.float64]:
    """One vector; whole numbers below 2^53 pass through it unharmed."""
    return np.concatenate([np.zeros(0), *(np.ravel(array).astype(np.float64) for array in arrays)])


def _with_data(entry: Entry, values: Values, model: "pm.Model") -> "CompiledPyMCModel | None":
    """The entry's machine code for other data; None if what is computed from them has another shape than then."""
    with entry.lock:
        _set(entry.model, values)
        arrays = [np.asarray(array) for array in entry.hoist()]
    if [array.shape for array in arrays] != entry.shapes:
        return None
    updates = {HOISTED: _flat(arrays), **values}
    known = {str(var.name) for var in entry.machine.shared_var_keys}
    start = entry.machine.initial_point_func

    def initial_point(seed: Any) -> NDArray[np.float64]:
        """Where priors and data at hand say, not those of whoever was compiled first."""
        with entry.lock:
            _set(entry.model, values)
            point: NDArray[np.float64] = start(seed)
            return point

    labels = {dim: pd.Index(labels) for dim, labels in model.coords.items() if labels is not None}
    return dataclasses.replace(
        entry.machine.with_data(**{name: value for name, value in updates.items() if name in known}),
        initial_point_func=initial_point,
        _coords={**entry.machine.coords, **labels},
    )


def _set(model: "pm.Model", values: Values) -> None:
    for var in model.data_vars:
        var.set_value(values[str(var.name)])


def signature(model: "pm.Model") -> Hashable:
    """Everything about a model but the values of its data: equal signatures share machine code."""
    observed = [model.rvs_to_values[var] for var in model.observed_RVs]
    outputs = [*model.basic_RVs, *model.deterministics, *model.potentials, *observed]
    lengths = {name: int(length.eval()) for name, length in model.dim_lengths.items()}
    variables = tuple(
        (var.name, _plain(model.rvs_to_transforms[var]), _plain(model.rvs_to_initial_values.get(var)))
        for var in model.free_RVs
    )
    dims = tuple((name, tuple(dims)) for name, dims in model.named_vars_to_dims.items())
    return _graph(outputs), tuple(lengths.items()), variables, dims, model.check_bounds


def _graph(outputs: "Iterable[Variable]") -> Hashable:
    """A graph as text that can be compared: operations in order, inputs by number, data by name and shape."""
    from pytensor.graph.traversal import toposort

    outputs, lines = list(outputs), list[Hashable]()
    number: dict[Variable, int] = {}

    def seen(var: "Variable") -> int:
        if var not in number:
            number[var] = len(number)
            lines.append(_root(var))
        return number[var]

    for node in toposort(outputs):
        inputs = tuple(seen(var) for var in node.inputs)
        lines.append((node.op, inputs, tuple(var.type for var in node.outputs)))
        for var in node.outputs:
            number[var] = len(number)
    return tuple(lines), tuple((seen(var), var.name) for var in outputs)


def _root(var: "Variable") -> Hashable:
    from pytensor.compile import SharedVariable
    from pytensor.graph import Constant

    if isinstance(var, Constant):
        return ("constant", var.type, var.signature())
    if isinstance(var, SharedVariable):
        value = var.get_value(borrow=True)
        # A random number generator says nothing; its name, if any, comes from the model.
        return ("data", var.name, var.type, np.shape(value)) if isinstance(value, np.ndarray | float) else (var.type,)
    return ("input", var.name, var.type)


def _plain(thing: Any) -> Hashable:
    """A transform by its class and settings; bounds are functions, told apart by their code and what they enclose."""
    from pytensor.graph import Variable

    match thing:
        case None | bool() | int() | float() | str() | bytes():
            found: Hashable = thing
        case list() | tuple():
            found = tuple(map(_plain, thing))
        case np.ndarray() | np.generic():
            found = (str(thing.dtype), thing.shape, thing.tobytes())
        case Variable():
            found = _graph([thing])
        case FunctionType():
            enclosed = [cell.cell_contents for cell in thing.__closure__ or ()]
            found = (thing.__code__, _plain(enclosed), _plain(thing.__defaults__))
        case _ if hasattr(thing, "__dict__"):
            found = (type(thing), tuple((name, _plain(value)) for name, value in sorted(vars(thing).items())))
        case _:
            found = id(thing)  # nothing else is equal to it
    return found
