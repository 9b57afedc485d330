"""One image of a file, as RGB of 8 bits."""

from typing import TYPE_CHECKING, Any

from fedkd_flwr.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_WHITE_IS_ZERO = 0
"""Of the TIFF tag of photometric interpretation."""


def read_image(path: str) -> "Image.Image":
    """The image of a file, its first frame, as RGB, turned as its camera was; what is transparent keeps its colour.

    Grey values of 16 bits and floats from 0 to 1 are scaled to 8 bits.

    Raises:
        DataError: the file holds no image, or values of a range that nothing tells.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                image = _scaled(path, image, opened)
            if image.mode in ("RGBa", "La"):
                image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
            return image.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # of the many kinds that the readers of image formats raise on damaged files
        raise DataError(f"{path}: no image that can be read ({type(error).__name__}): replace or remove it") from None


def _scaled(path: str, image: "Image.Image", opened: Any) -> "Image.Image":
    """Grey values of more than 8 bits as 8 bits; what is black is 0."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    tags = getattr(opened, "tag_v2", {})
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise DataError(
                f"{path}: its pixels are floats beyond 0 ... 1, whose range nothing tells: save it in 8 bits"
            )
        top = 1.0
    else:
        top = 2.0 ** int(tags.get(258, (16,))[0]) - 1
        if not (values.min() >= 0 and values.max() <= top <= 65535):
            raise DataError(
                f"{path}: its pixels are whole numbers of 32 bits or with a sign, whose range nothing tells: "
                "save it in 8 or 16 bits"
            )
    if tags.get(262, 1) == _WHITE_IS_ZERO:
        values = top - values
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))
