"""Machine code of PyMC models, kept for the next data of the same structure: compiling takes longer than sampling.

model      whatever is a `pm.Data` is exchangeable; all else, lengths of dims included, is the structure
hoisted    what the log density computes from data alone is computed once per data set, not once per step, and
           reaches the machine code as one vector: nutpie's compile time grows with the number of arrays
"""

import ctypes
import dataclasses
import statistics
import threading
import time
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

MAX_CACHED_STRUCTURES = 4
"""Structures that are kept: a fit, its completely and not pooled companions, and one more."""
TIMED_GRADIENTS = 21
"""Evaluations that the time of one is measured by; the first ones wait for memory, so the median counts."""
HOISTED_VECTOR_NAME = "__hoisted"
"""Name of the shared vector; no variable of ours starts with an underscore."""

DataValues = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class CompiledStructure:
    """Machine code of one structure, and what fits other data to it.

    Attributes
    ----------
    compiled_model : CompiledPyMCModel
        Machine code with the data it was compiled with.
    private_model : pm.Model
        A copy of the PyMC model, dims frozen, whose data are set before anything is computed from them.
    compute_hoisted : callable
        () -> arrays that the log density needs of the data of `private_model`.
    hoisted_shapes : list of tuple
        Shapes of the hoisted arrays.
    data_lock : threading.Lock
        Held while the data of `private_model` are set and used.
    """

    compiled_model: "CompiledPyMCModel"
    private_model: "pm.Model"
    compute_hoisted: Callable[[], list[NDArray[Any]]]
    hoisted_shapes: list[tuple[int, ...]]
    data_lock: threading.Lock


_structure_cache: OrderedDict[Hashable, CompiledStructure] = OrderedDict()
_cache_lock = threading.Lock()


def compile_or_reuse(pymc_model: "pm.Model") -> "CompiledPyMCModel":
    """Compile a model for nutpie, or fit the machine code of its structure to its data, labels and initial points.

    Results do not depend on what was compiled earlier. Safe to call from several threads.
    """
    data_values = {str(variable.name): np.asarray(variable.get_value()) for variable in pymc_model.data_vars}
    structure_key = build_signature(pymc_model)
    with _cache_lock:
        ready_model = None
        if structure_key in _structure_cache:
            ready_model = _exchange_data(_structure_cache[structure_key], data_values, pymc_model)
        # Hoisted arrays of another shape need new code: it takes the place of the old.
        if ready_model is None:
            _structure_cache[structure_key] = _compile_structure(pymc_model)
            ready_model = _exchange_data(_structure_cache[structure_key], data_values, pymc_model)
        # Least recently used structures are dropped first.
        _structure_cache.move_to_end(structure_key)
        while len(_structure_cache) > MAX_CACHED_STRUCTURES:
            _structure_cache.popitem(last=False)
    if ready_model is None:
        raise AssertionError("what is computed from the data of a model has no fixed shape")
    return ready_model


def time_gradient(compiled_model: "CompiledPyMCModel") -> float:
    """Time one evaluation of the log density with its gradient, in seconds: the median of some."""
    argument_types = [ctypes.c_uint64, *[ctypes.c_void_p] * 4]
    evaluate = ctypes.CFUNCTYPE(ctypes.c_int64, *argument_types)(compiled_model.compiled_logp_func.address)
    point = compiled_model.initial_point_func(1)
    gradient, log_density = np.zeros_like(point), np.zeros(())
    arrays = [array.ctypes.data for array in (point, gradient, log_density, compiled_model.user_data)]
    durations = []
    for _ in range(TIMED_GRADIENTS):
        started = time.perf_counter()
        evaluate(len(point), *arrays)
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def clear_cache() -> None:
    """Drop every compiled model."""
    with _cache_lock:
        _structure_cache.clear()


def _compile_structure(pymc_model: "pm.Model") -> CompiledStructure:
    import nutpie
    import pytensor
    from pymc.model.transform.optimization import freeze_dims_and_data
    from pytensor.compile.mode import Mode

    private_model = freeze_dims_and_data(pymc_model, data=[])
    log_density, data_frontier = find_data_frontier(private_model)
    compute_hoisted = pytensor.function([], data_frontier, mode=Mode(linker="py", optimizer="fast_compile"))
    hoisted_arrays = [np.asarray(hoisted_array) for hoisted_array in compute_hoisted()]
    # nutpie asks the model itself for its log density; the copy is ours alone.
    private_model.logp = lambda: _read_from_vector(log_density, data_frontier, hoisted_arrays)
    compiled_model = nutpie.compile_pymc_model(private_model)
    hoisted_shapes = [array.shape for array in hoisted_arrays]
    return CompiledStructure(compiled_model, private_model, compute_hoisted, hoisted_shapes, threading.Lock())


def find_data_frontier(pymc_model: "pm.Model") -> "tuple[TensorVariable, list[TensorVariable]]":
    """Rewrite the log density, and find where in its graph data end and parameters begin."""
    from pytensor.graph import rewrite_graph
    from pytensor.graph.traversal import toposort
    from pytensor.tensor.variable import TensorVariable

    # The same rewrites that nutpie starts with: they decide what depends on data alone.
    rewrite_names = ["canonicalize", "stabilize"]
    if not pymc_model.check_bounds:
        rewrite_names.append("local_remove_check_parameter")
    log_density = rewrite_graph(pymc_model.logp(), include=rewrite_names)
    moving_variables, data_variables = set(pymc_model.value_vars), set(pymc_model.data_vars)
    data_frontier: dict[TensorVariable, None] = {}
    for graph_node in toposort([log_density]):
        # A vector holds tensors only: what is made of data in another type counts as moving.
        all_tensors = all(isinstance(variable, TensorVariable) for variable in graph_node.outputs)
        needs_data = not data_variables.isdisjoint(graph_node.inputs)
        if not moving_variables.isdisjoint(graph_node.inputs) or (needs_data and not all_tensors):
            moving_variables.update(graph_node.outputs)
            data_frontier |= {variable: None for variable in graph_node.inputs if variable in data_variables}
        elif needs_data:
            data_variables.update(graph_node.outputs)
    return log_density, list(data_frontier)


def _read_from_vector(
    log_density: "TensorVariable", data_frontier: "list[TensorVariable]", hoisted_arrays: list[NDArray[Any]]
) -> "TensorVariable":
    """Rewrite the log density such that everything at the frontier is read from one shared vector."""
    import pytensor
    from pytensor.graph.replace import clone_replace

    if not data_frontier:
        return log_density
    flat_values = _flatten_arrays(hoisted_arrays)
    shared_vector = pytensor.shared(flat_values, name=HOISTED_VECTOR_NAME, shape=flat_values.shape)
    start_index, replacements = 0, {}
    for variable, hoisted_array in zip(data_frontier, hoisted_arrays, strict=True):
        vector_part = shared_vector[start_index : start_index + hoisted_array.size]
        replacements[variable] = vector_part.reshape(hoisted_array.shape).astype(variable.dtype)
        start_index += hoisted_array.size
    return clone_replace(log_density, replacements, rebuild_strict=False)


def _flatten_arrays(arrays: list[NDArray[Any]]) -> NDArray[np.float64]:
    """Join arrays to one vector; whole numbers below 2^53 pass through it unharmed."""
    # The empty array stands for no arrays, which NumPy does not concatenate.
    return np.concatenate([np.zeros(0), *(np.ravel(array).astype(np.float64) for array in arrays)])


def _exchange_data(
    structure: CompiledStructure, data_values: DataValues, pymc_model: "pm.Model"
) -> "CompiledPyMCModel | None":
    """Fit machine code to other data; None if what is computed from them has another shape than at compilation."""
    with structure.data_lock:
        _set_data(structure.private_model, data_values)
        hoisted_arrays = [np.asarray(array) for array in structure.compute_hoisted()]
    if [array.shape for array in hoisted_arrays] != structure.hoisted_shapes:
        return None
    data_updates = {HOISTED_VECTOR_NAME: _flatten_arrays(hoisted_arrays), **data_values}
    known_names = {str(variable.name) for variable in structure.compiled_model.shared_var_keys}
    find_initial_point = structure.compiled_model.initial_point_func

    def initial_point(seed: Any) -> NDArray[np.float64]:
        """Find an initial point for the data at hand, not for those that the code was compiled with."""
        with structure.data_lock:
            _set_data(structure.private_model, data_values)
            start_values: NDArray[np.float64] = find_initial_point(seed)
            return start_values

    dim_labels = {dim: pd.Index(labels) for dim, labels in pymc_model.coords.items() if labels is not None}
    # Data that the machine code does not read are hoisted, and reach it as the vector.
    known_updates = {name: value for name, value in data_updates.items() if name in known_names}
    return dataclasses.replace(
        structure.compiled_model.with_data(**known_updates),
        initial_point_func=initial_point,
        _coords={**structure.compiled_model.coords, **dim_labels},
    )


def _set_data(pymc_model: "pm.Model", data_values: DataValues) -> None:
    for variable in pymc_model.data_vars:
        variable.set_value(data_values[str(variable.name)])


def build_signature(pymc_model: "pm.Model") -> Hashable:
    """Build a key of everything about a model but the values of its data: equal signatures share machine code."""
    observed_values = [pymc_model.rvs_to_values[variable] for variable in pymc_model.observed_RVs]
    graph_outputs = [*pymc_model.basic_RVs, *pymc_model.deterministics, *pymc_model.potentials, *observed_values]
    dim_lengths = {name: int(dim_length.eval()) for name, dim_length in pymc_model.dim_lengths.items()}
    variable_keys = tuple(
        (
            variable.name,
            _make_hashable(pymc_model.rvs_to_transforms[variable]),
            _make_hashable(pymc_model.rvs_to_initial_values.get(variable)),
        )
        for variable in pymc_model.free_RVs
    )
    dim_names = tuple((name, tuple(dims)) for name, dims in pymc_model.named_vars_to_dims.items())
    graph_key = _serialise_graph(graph_outputs)
    return graph_key, tuple(dim_lengths.items()), variable_keys, dim_names, pymc_model.check_bounds


def _serialise_graph(graph_outputs: "Iterable[Variable]") -> Hashable:
    """List a graph in comparable form: operations in order, inputs by number, data by name and shape."""
    from pytensor.graph.traversal import toposort

    graph_outputs, graph_lines = list(graph_outputs), list[Hashable]()
    variable_numbers: dict[Variable, int] = {}

    def number_variable(variable: "Variable") -> int:
        if variable not in variable_numbers:
            variable_numbers[variable] = len(variable_numbers)
            graph_lines.append(_describe_root(variable))
        return variable_numbers[variable]

    for graph_node in toposort(graph_outputs):
        input_numbers = tuple(number_variable(variable) for variable in graph_node.inputs)
        graph_lines.append((graph_node.op, input_numbers, tuple(variable.type for variable in graph_node.outputs)))
        for variable in graph_node.outputs:
            variable_numbers[variable] = len(variable_numbers)
    return tuple(graph_lines), tuple((number_variable(variable), variable.name) for variable in graph_outputs)


def _describe_root(variable: "Variable") -> Hashable:
    from pytensor.compile import SharedVariable
    from pytensor.graph import Constant

    if isinstance(variable, Constant):
        return ("constant", variable.type, variable.signature())
    if isinstance(variable, SharedVariable):
        value = variable.get_value(borrow=True)
        if isinstance(value, np.ndarray | float):
            return ("data", variable.name, variable.type, np.shape(value))
        # A random number generator says nothing; its name, if any, comes from the model.
        return (variable.type,)
    return ("input", variable.name, variable.type)


def _make_hashable(setting: Any) -> Hashable:
    """Make a key of a transform from its class and settings; of a function, from its code and what it encloses."""
    from pytensor.graph import Variable

    match setting:
        case None | bool() | int() | float() | str() | bytes():
            hashable_setting: Hashable = setting
        case list() | tuple():
            hashable_setting = tuple(map(_make_hashable, setting))
        case np.ndarray() | np.generic():
            hashable_setting = (str(setting.dtype), setting.shape, setting.tobytes())
        case Variable():
            hashable_setting = _serialise_graph([setting])
        case FunctionType():
            enclosed_values = [cell.cell_contents for cell in setting.__closure__ or ()]
            hashable_setting = (setting.__code__, _make_hashable(enclosed_values), _make_hashable(setting.__defaults__))
        case _ if hasattr(setting, "__dict__"):
            hashable_setting = (
                type(setting),
                tuple((name, _make_hashable(value)) for name, value in sorted(vars(setting).items())),
            )
        case _:
            hashable_setting = id(setting)  # nothing else is equal to it
    return hashable_setting
