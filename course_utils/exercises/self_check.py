"""What all self-checks share: they say what is wrong and where to look, never the answer.

A right answer prints one line that begins with "correct:". A wrong one raises `NotYet`, whose message is one line, too:
the notebook shows it in red, and "Run All" stops at the first exercise that still needs work. A check has a message for
each likely mistake, and works out what is right from the task, so that the task's numbers may be changed.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


class NotYet(AssertionError):
    """An answer is not right yet; the message says what is wrong and where to look."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback, which would only lead into the course's code."""
        return [f"not yet: {self}"]


def self_check(check: Callable[..., str]) -> Callable[..., None]:
    """Make a check of a function that raises `NotYet` or returns what to say about a right answer."""

    @functools.wraps(check)
    def checked(*args, **task) -> None:
        refuse(any(arg is ... for arg in args), "no answer yet: write one in place of the three dots")
        print("correct:", check(*args, **task))

    return checked


def refuse(wrong: bool, message: str) -> None:
    """Raise `NotYet` with `message` if something is `wrong`."""
    if wrong:
        raise NotYet(message)


def result_of(function: Callable, *args) -> Any:
    """What the student's function returns, which has to be something; what it is given must stay as it is."""
    given = [arg for arg in args if isinstance(arg, (Tensor, np.ndarray))]
    before = copy.deepcopy(given)
    with torch.set_grad_enabled(was_on := torch.is_grad_enabled()):  # which is put back afterwards
        result = function(*args)
        is_on = torch.is_grad_enabled()
    refuse(is_on != was_on, "autograd stays off for all that follows: use `with torch.no_grad():`")
    name = getattr(function, "__name__", "the function")
    refuse(result is None or result is ..., f"{name} returns nothing yet")
    same = all(np.array_equal(one, other) for one, other in zip(before, given, strict=True))
    refuse(not same, "what was passed in has changed: work on a copy")
    return result


def compare(answer: Any, right: Any, otherwise: str, mistakes: dict[str, Any], about_shape: str = "") -> None:
    """Raise `NotYet` unless `answer` is `right`: by a message of `mistakes`, {message: wrong answer}, or `otherwise`.

    Integers and lists have to agree exactly, floats to one part in a thousand, tensors in shape, dtype and values.
    """
    if isinstance(right, Tensor):
        refuse(not isinstance(answer, Tensor), f"expected a torch tensor, found {type(answer).__name__}")
        shapes = f"expected the shape {tuple(right.shape)}, found {tuple(answer.shape)}"
        refuse(answer.shape != right.shape, f"{shapes}: {about_shape}")
        refuse(answer.dtype != right.dtype, f"expected {right.dtype}, found {answer.dtype}")
    if not alike(answer, right):
        raise NotYet(next((text for text, wrong in mistakes.items() if alike(answer, wrong)), otherwise))


def alike(answer: Any, right: Any) -> bool:
    if isinstance(right, Tensor):
        return torch.allclose(answer.float().cpu(), right.float().cpu(), rtol=1e-4, atol=1e-5)
    if isinstance(right, list):
        return answer == right
    return bool(np.isclose(number(answer), right, rtol=1e-3 if isinstance(right, float) else 0, atol=0))


def number(answer: Any) -> float:
    try:
        return float(answer)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"expected a number, found {type(answer).__name__}") from None


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random numbers, the same every time: float32 ones normally distributed, or uint8 ones of all values."""
    generator = torch.Generator().manual_seed(0)
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype, generator=generator)
    return torch.randn(shape, generator=generator)
