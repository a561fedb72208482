"""Writes the images and expectations of src/image/tests/data with Pillow and torchvision.

usage: images.py EDGE PHOTO OUT     EDGE: a folder of awkward images, PHOTO: a photo of 128 x 128 pixels
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torchvision.transforms as transforms
from PIL import Image, ImageOps

COPIED = "animated.gif cmyk.jpg gray16.png gray8.png one_pixel.png png_named.jpg sticker.webp wide_128x37.jpg".split()
BROKEN = "truncated.png empty.png text.png".split()


def flat(image):
    """The image upright, opaque on white, with 8 bits per channel."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = (np.array(image).astype(np.int64) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        white.alpha_composite(image)
        return white.convert("RGB")
    return image.convert("RGB")


def main(edge, photo, out):
    def expect(name):
        flat(Image.open(out / name)).save(out / f"expected_{name.replace('.', '_')}.png", optimize=True)

    for name in COPIED + BROKEN:
        shutil.copyfile(edge / name, out / name)
    for name in COPIED:
        expect(name)
    quarters = np.zeros((24, 32, 3), np.uint8)
    quarters[:12, :16], quarters[:12, 16:] = (250, 20, 20), (20, 250, 20)
    quarters[12:, :16], quarters[12:, 16:] = (20, 20, 250), (240, 240, 20)
    for orientation in range(1, 9):
        image = Image.fromarray(quarters)
        exif = image.getexif()
        exif[0x112] = orientation
        image.save(out / f"orientation_{orientation}.jpg", quality=95, exif=exif, subsampling=0)
        expect(f"orientation_{orientation}.jpg")
    noise = np.random.default_rng(5).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    Image.fromarray(noise).save(out / "alpha.png")
    expect("alpha.png")
    Image.fromarray(noise[..., :3]).quantize(16).save(out / "palette.png", transparency=3)
    expect("palette.png")
    whole = (edge / "wide_128x37.jpg").read_bytes()
    (out / "truncated.jpg").write_bytes(whole[: len(whole) * 2 // 3])

    photo = Image.open(photo).convert("RGB")
    wide = photo.crop((10, 3, 128, 60))
    photo.save(out / "photo.png", optimize=True)
    wide.save(out / "wide.png", optimize=True)
    for name, image, size, kernel in [
        ("bilinear_down", photo, (37, 50), Image.BILINEAR),
        ("bilinear_up", wide, (150, 90), Image.BILINEAR),
        ("bilinear_mixed", wide, (30, 120), Image.BILINEAR),
        ("bicubic_down", photo, (40, 33), Image.BICUBIC),
        ("bicubic_up", wide, (160, 80), Image.BICUBIC),
    ]:
        image.resize(size, kernel).save(out / f"resized_{name}.png", optimize=True)
    for name, image, size, crop in [
        ("wide", wide, 45, 45),
        ("tall", wide.transpose(Image.ROTATE_90), 31, (20, 31)),
    ]:
        transform = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(crop)])
        transform(image).save(out / f"transformed_{name}.png", optimize=True)


main(*map(Path, sys.argv[1:]))
