"""What a task function takes: the arguments of a job, held against its signature."""

import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobs.compat import Task
from jobs.errors import InvalidJob

#: Annotations that are checked, and what JSON gives for them. All others accept anything.
_JSON_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (float, int),
    bool: (bool,),
    list: (list,),
    dict: (dict,),
    None: (types.NoneType,),
    types.NoneType: (types.NoneType,),
}


def check_call(task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise InvalidJob unless the task function can be called with these arguments."""
    kinds = tuple(map(type, args))
    if not kwargs and _fit_by_type(task.func, task.takes_context, kinds):
        return
    signature = of(task)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidJob("args", f"{task.name}{signature}: {error}") from None
    for name, value in bound.arguments.items():
        parameter = signature.parameters[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            values = list(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            values = list(value.values())
        else:
            values = [value]
        for each in values:
            if not _fits(each, parameter.annotation):
                raise InvalidJob(
                    "args", f"{task.name}{signature}: {name} cannot be {each!r:.60}"
                )


def read_arguments(
    task: Task, words: Sequence[str], named: Mapping[str, str]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments from a command line: text where the function takes text, else JSON."""
    parameters = of(task).parameters
    positional = [
        p
        for p in parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    rest = next((p for p in parameters.values() if p.kind is p.VAR_POSITIONAL), None)
    args = [
        _read(word, positional[i] if i < len(positional) else rest)
        for i, word in enumerate(words)
    ]
    others = next((p for p in parameters.values() if p.kind is p.VAR_KEYWORD), None)
    kwargs = {
        name: _read(word, parameters.get(name, others)) for name, word in named.items()
    }
    return args, kwargs


def of(task: Task) -> inspect.Signature:
    """The function's signature as a caller sees it: without the context."""
    return _of(task.func, task.takes_context)


# Not by the task, whose hash is that of all its options.
@functools.cache
def _of(function: Callable[..., Any], takes_context: bool) -> inspect.Signature:
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:
        # Annotations that only a type checker can resolve: names alone are held against.
        signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=parameters[1:] if takes_context else parameters)


@functools.lru_cache(maxsize=1000)
def _fit_by_type(
    function: Callable[..., Any], takes_context: bool, kinds: tuple[type, ...]
) -> bool:
    """Whether arguments of these types can be passed, whichever they are. In doubt, no.

    Thousands of jobs of one task are checked once.
    """
    parameters = list(_of(function, takes_context).parameters.values())
    required = [each for each in parameters if each.default is each.empty]
    return len(required) <= len(kinds) <= len(parameters) and all(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and _all_fit(kind, parameter.annotation)
        for parameter, kind in zip(parameters, kinds, strict=False)
    )


def _all_fit(kind: type, annotation: Any) -> bool:
    """Whether every value of this type may be passed where the annotation stands."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_all_fit(kind, option) for option in typing.get_args(annotation))
    if origin is typing.Literal:
        return False
    expected = _JSON_TYPES.get(origin or annotation)
    return expected is None or kind in expected


def _read(word: str, parameter: inspect.Parameter | None) -> Any:
    if parameter is not None and _takes_text(parameter.annotation):
        return word
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        return word


def _takes_text(annotation: Any) -> bool:
    options = typing.get_args(annotation) or (annotation,)
    return any(option is str or isinstance(option, str) for option in options)


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a JSON value may be passed where the annotation stands. In doubt, yes."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(annotation))
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    expected = _JSON_TYPES.get(origin or annotation)
    if expected is None:
        return True
    if isinstance(value, bool) and bool not in expected:
        return False
    return isinstance(value, expected)
