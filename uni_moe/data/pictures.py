"""Decoding of untrusted pictures to upright 8-bit RGB."""

from __future__ import annotations

import io
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from uni_moe.errors import DataError

MAX_PIXELS = 64_000_000
# Formats that are decoded inside Pillow. EPS and the like, which start other programs, are out.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")


def open_picture(data: bytes) -> Image.Image:
    """Open a picture or an animation and refuse a huge one before any pixel is decoded.

    Raises:
        DataError: the bytes are no picture that we read, or claim more than MAX_PIXELS.
    """
    if not data:
        refuse_picture("it has no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        refuse_picture("its first bytes are of no picture format that we read")
    except Exception as error:  # noqa: BLE001 - a decoder of untrusted bytes may raise anything
        refuse_picture(str(error) or type(error).__name__)
    width, height = image.size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise DataError(
            f"A picture of {width} x {height} pixels is refused.",
            cause=f"at most {MAX_PIXELS} pixels are decoded; a small file may claim far more.",
            remedy="scale the picture down before ingest.",
        )
    return image


def decode_image(data: bytes) -> Image.Image:
    """Decode a picture (the first frame of an animation) to upright 8-bit RGB.

    EXIF turns are applied, alpha is laid on white, 16-bit grey is scaled, CMYK is converted. Colour
    profiles are not applied.

    Raises:
        DataError: the bytes are no whole picture, or one that is too large.
    """
    image = open_picture(data)
    try:
        image.load()
        return to_rgb(_upright(image))
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - a decoder of untrusted bytes may raise anything
        refuse_picture(str(error) or type(error).__name__)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a decoded picture as 8-bit RGB."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled_grey(image).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF turn; a broken EXIF block counts as none."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - any fault of the EXIF block leaves the picture as it is
        return image


def _scaled_grey(image: Image.Image) -> Image.Image:
    """Scale grey of more than 8 bits: 16-bit integers by their range, floats by what they hold."""
    grey = np.asarray(image, dtype=np.float64)
    if not np.isfinite(grey).all():
        raise DataError(
            "A picture holds values that are no numbers.",
            cause="a float TIFF with NaN or infinity.",
            remedy="clean the picture, or save it as 8-bit PNG.",
        )
    low, high = float(grey.min()), float(grey.max())
    if low >= 0 and high <= (1 if image.mode == "F" else 65535):
        low, high = 0.0, 1.0 if image.mode == "F" else 65535.0
    scaled = (grey - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def refuse_picture(reason: str) -> NoReturn:
    """Raise the error for bytes that are no picture."""
    raise DataError(
        f"A picture cannot be decoded: {reason}.",
        cause="the file is empty, cut, damaged or no picture.",
        remedy="open it in a viewer; replace it, or convert it to PNG or JPEG.",
    )
