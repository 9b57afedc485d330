"""The matrices that tensors of any shape are encoded as."""

import math

Shape = tuple[int, ...]

_LONG_ROW = 64  # numbers in a row from which on a scale of its own costs little


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """The [out, rest] that a tensor of `shape` is flattened to: [n, 1] for a vector, [1, 1] for a scalar."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def sides(shape: Shape) -> int:
    """Numbers of a component, a column of one factor and a row of the other: out + rest."""
    return sum(matrix_shape(shape))


def may_shrink(shape: Shape) -> bool:
    """Tell whether factors of rank 1 have fewer numbers than the tensor."""
    return math.prod(shape) > sides(shape)


def scaled_rows(shape: Shape) -> tuple[int, int]:
    """The [rows, columns] that the numbers of a dense tensor are quantised as, a scale for each row."""
    out, rest = matrix_shape(shape)
    return (out, rest) if rest >= _LONG_ROW else (1, out * rest)
