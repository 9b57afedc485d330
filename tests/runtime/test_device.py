import pytest
import torch

from fedkd_flwr.errors import DeviceError
from fedkd_flwr.runtime.cpus import available_cpus
from fedkd_flwr.runtime.device import Device, choose_device, set_threads

CPU = torch.device("cpu")


def test_a_cpu_computes_in_fp32_unless_told_otherwise() -> None:
    assert choose_device("cpu", "auto") == choose_device("cpu", "fp32") == Device(CPU, None)
    assert choose_device("cpu", "bf16") == Device(CPU, torch.bfloat16)
    assert "cpu, bf16" in str(choose_device("cpu", "bf16"))


def test_fp16_on_a_cpu_is_an_error_in_words() -> None:
    with pytest.raises(DeviceError, match=r"'fp16' but the device is a CPU: set run.precision to"):
        choose_device("cpu", "fp16")


@pytest.mark.parametrize("bf16", [False, True])
def test_auto_takes_the_gpu_and_bf16_where_it_can(monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 or including_emulation)
    assert choose_device("auto", "auto") == Device(torch.device("cuda"), torch.bfloat16 if bf16 else None)
    assert choose_device("cpu", "auto") == Device(CPU, None)
    if not bf16:
        with pytest.raises(DeviceError, match="'bf16' but this GPU cannot"):
            choose_device("cuda", "bf16")


def test_a_gpu_that_is_not_there_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        DeviceError, match=r"'cuda' but PyTorch sees no GPU here: .* or set run.device to 'auto' or 'cpu'"
    ):
        choose_device("cuda", "auto")
    assert choose_device("auto", "auto").device == CPU


def test_threads_are_those_asked_for_or_all() -> None:
    set_threads(1)
    assert torch.get_num_threads() == 1
    set_threads(0)
    assert torch.get_num_threads() == available_cpus()
