"""Every kind of pixel is read as it is meant, or refused by the name of its file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedkd_flwr.data.image_files import read_image
from fedkd_flwr.errors import DataError

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
GREY = np.stack([RAMP] * 3, -1)


def pixels(path: Path) -> Any:
    image = read_image(str(path))
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_grey_are_scaled(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    assert (pixels(path) == GREY).all()
    Image.fromarray(np.array([[0, 65535, 32896, 128]], np.uint16)).save(path)
    assert pixels(path)[0, :, 0].tolist() == [0, 255, 128, 0]


def test_big_endian_sixteen_bits_and_white_as_zero_are_read_as_they_are_meant(tmp_path: Path) -> None:
    values = RAMP.astype(np.uint16) * 257
    Image.frombytes("I;16B", (16, 16), values.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    assert (pixels(tmp_path / "big.tif") == GREY).all()
    Image.fromarray(values).save(tmp_path / "white.tif")
    written, tag = (tmp_path / "white.tif").read_bytes(), b"\x06\x01\x03\x00\x01\x00\x00\x00"
    assert tag + b"\x01" in written
    (tmp_path / "white.tif").write_bytes(written.replace(tag + b"\x01", tag + b"\x00"))
    assert (pixels(tmp_path / "white.tif") == 255 - GREY).all()


def test_floats_from_0_to_1_are_scaled_and_others_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32) / 255).save(tmp_path / "a.tif")
    assert (pixels(tmp_path / "a.tif") == GREY).all()
    for number, values in enumerate((RAMP.astype(np.float32), np.full((2, 2), np.nan, np.float32))):
        Image.fromarray(values).save(tmp_path / f"{number}.tif")
        with pytest.raises(DataError, match=f"{number}.tif: its pixels are floats beyond 0 ... 1"):
            read_image(str(tmp_path / f"{number}.tif"))


@pytest.mark.parametrize("values", [[[0, 70000]], [[-1, 5]]])
def test_whole_numbers_of_no_known_range_are_refused_by_name(values: Any, tmp_path: Path) -> None:
    Image.fromarray(np.array(values, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a.tif: its pixels are whole numbers of 32 bits or with a sign"):
        read_image(str(tmp_path / "a.tif"))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *(("L", suffix) for suffix in ("png", "bmp", "tif", "gif")),
        *((mode, "png") for mode in ("LA", "RGB", "RGBA", "P")),
        *((mode, "tif") for mode in ("CMYK", "RGB", "RGBA")),
        ("RGB", "webp"),
    ],
)
def test_other_modes_show_the_same_grey(mode: str, suffix: str, tmp_path: Path) -> None:
    kept = {"lossless": True} if suffix == "webp" else {}
    grey = Image.fromarray(RAMP) if mode == "P" else Image.fromarray(GREY)
    grey.convert(mode).save(tmp_path / f"a.{suffix}", **kept)
    assert (pixels(tmp_path / f"a.{suffix}") == GREY).all()


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(RAMP > 127).save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png") == np.where(GREY > 127, 255, 0)).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_of_several_frames_the_first_is_read(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert (pixels(tmp_path / f"a.{suffix}") >= 250).all()


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_a_picture_is_turned_as_its_camera_was(mode: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    grey = Image.fromarray(RAMP[:4]) if mode == "RGB" else Image.fromarray(RAMP[:4].astype(np.uint16) * 257)
    (grey.convert("RGB") if mode == "RGB" else grey).save(tmp_path / "a.png", exif=exif)
    assert (pixels(tmp_path / "a.png") == np.rot90(GREY[:4], -1)).all()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.gif"])
def test_what_is_no_image_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(DataError, match=f"{name}: no image that can be read"):
        read_image(str(path))
    Image.fromarray(GREY).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"{name}: no image that can be read .*: replace or remove it"):
        read_image(str(path))
