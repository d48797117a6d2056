"""What a task function takes: a job's arguments are held against its signature.

Only this module reads signatures. The others ask it what a call looks like.
"""

import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from jobs.compat import Task
from jobs.errors import InvalidJob

#: The annotations that are checked, and the types of the JSON values that fit them. Every
#: value fits any other annotation.
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

#: Stands for a value of which only the type is known.
_UNKNOWN: Any = object()


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
        for argument in values:
            if not _fits(parameter.annotation, type(argument), argument):
                raise InvalidJob(
                    "args",
                    _("%(call)s: %(name)s cannot be %(value)s")
                    % {
                        "call": f"{task.name}{signature}",
                        "name": name,
                        "value": f"{argument!r:.60}",
                    },
                )


def read_arguments(
    task: Task, words: Sequence[str], named: Mapping[str, str]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments from a command line: text where the function takes text, else JSON."""
    args = [_read(word, _positional(task, i)) for i, word in enumerate(words)]
    kwargs = {name: _read(word, _named(task, name)) for name, word in named.items()}
    return args, kwargs


def name_arguments(
    task: Task | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """Each argument with the name of its parameter, or its index where that is unknown."""
    named = []
    for index, value in enumerate(args):
        parameter = _positional(task, index) if task else None
        if parameter is None or parameter.kind is parameter.VAR_POSITIONAL:
            named.append((f"[{index}]", value))
        else:
            named.append((parameter.name, value))
    return [*named, *kwargs.items()]


def summary(task: Task) -> str:
    """The task and what it takes, as in `send_invoice(order_id: int, copy: bool = False)`."""
    return f"{task.name}{of(task).replace(return_annotation=inspect.Signature.empty)}"


def of(task: Task) -> inspect.Signature:
    """The function's signature as a caller sees it: without the context."""
    return _of(task.func, task.takes_context)


# The key is not the task itself: its hash is computed from all of its options.
@functools.cache
def _of(function: Callable[..., Any], takes_context: bool) -> inspect.Signature:
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:
        # Only a type checker can resolve these annotations, so only names are checked.
        signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=parameters[1:] if takes_context else parameters)


def _positional(task: Task, index: int) -> inspect.Parameter | None:
    """The parameter that takes the positional argument at this index."""
    parameters = [
        parameter
        for parameter in of(task).parameters.values()
        if parameter.kind
        in (
            parameter.POSITIONAL_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
    ]
    if index < len(parameters):
        return parameters[index]
    last = parameters[-1] if parameters else None
    return last if last and last.kind is last.VAR_POSITIONAL else None


def _named(task: Task, name: str) -> inspect.Parameter | None:
    """The parameter that takes the argument of this name."""
    parameters = of(task).parameters
    others = (p for p in parameters.values() if p.kind is p.VAR_KEYWORD)
    return parameters.get(name) or next(others, None)


@functools.lru_cache(maxsize=1000)
def _fit_by_type(
    function: Callable[..., Any], takes_context: bool, kinds: tuple[type, ...]
) -> bool:
    """Whether any arguments of these types can be passed. False if that depends on values.

    Cached: thousands of jobs of one task are checked once.
    """
    parameters = list(_of(function, takes_context).parameters.values())
    required = [p for p in parameters if p.default is p.empty]
    return len(required) <= len(kinds) <= len(parameters) and all(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and _fits(parameter.annotation, kind)
        for parameter, kind in zip(parameters, kinds, strict=False)
    )


def _fits(annotation: Any, kind: type, value: Any = _UNKNOWN) -> bool:
    """Whether this value, or every value of this type, fits an annotation.

    An annotation that is not checked fits everything.
    """
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(option, kind, value) for option in typing.get_args(annotation))
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    expected = _JSON_TYPES.get(origin or annotation)
    if expected is None:
        return True
    if issubclass(kind, bool) and bool not in expected:
        return False
    return issubclass(kind, expected)


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
