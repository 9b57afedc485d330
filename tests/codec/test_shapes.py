import pytest

from fedkd_flwr.codec.shapes import matrix_shape, may_shrink, scaled_rows, sides


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [((), (1, 1)), ((5,), (5, 1)), ((2, 3), (2, 3)), ((8, 3, 2, 2), (8, 12)), ((0, 4), (0, 4))],
)
def test_tensors_flatten_to_out_by_rest(shape: tuple[int, ...], matrix: tuple[int, int]) -> None:
    assert matrix_shape(shape) == matrix
    assert sides(shape) == sum(matrix)


@pytest.mark.parametrize(
    ("shape", "shrinks"), [((), False), ((9,), False), ((2, 2), False), ((2, 3), True), ((0, 4), False)]
)
def test_factors_of_rank_1_are_smaller_where_their_numbers_are_fewer(shape: tuple[int, ...], shrinks: bool) -> None:
    assert may_shrink(shape) == shrinks


@pytest.mark.parametrize(
    ("shape", "rows"),
    [((), (1, 1)), ((500,), (1, 500)), ((8, 63), (1, 504)), ((8, 64), (8, 64)), ((8, 4, 4, 4), (8, 64))],
)
def test_only_long_rows_have_a_scale_each(shape: tuple[int, ...], rows: tuple[int, int]) -> None:
    assert scaled_rows(shape) == rows
