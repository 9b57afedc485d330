import pytest

from fedkd_flwr.codec import Budget, CodecError, Energy


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_shares_out_of_range(share: float) -> None:
    with pytest.raises(CodecError, match="energy"):
        Energy(share)


def test_no_budget() -> None:
    with pytest.raises(CodecError, match="positive"):
        Budget(0)
