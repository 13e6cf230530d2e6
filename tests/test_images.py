"""`load_image`: every kind of picture reads upright and right, or is refused with the reason."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from pixelrefer_plugin import ImageError, load_image
from pixelrefer_plugin.media.images import image_hw

HW = (12, 20)
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (*HW, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, HW, dtype=np.uint8)
ALPHA = np.where(np.arange(HW[1]) < 10, 255, 0).astype(np.uint8)[None].repeat(HW[0], axis=0)


def saved(folder, picture, name="picture.png", **options):
    picture.save(folder / name, **options)
    return folder / name


def grey_rgb(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def over_white(colour, alpha):
    return np.where(alpha[..., None] == 255, colour, 255).astype(np.uint8)


# -- what reads --------------------------------------------------------------------------------------------


def palette_picture(**transparency):
    picture = Image.fromarray((GREY % 4).astype(np.uint8)).convert("P")
    picture.putdata((GREY % 4).ravel().tolist())
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    picture.info.update(transparency)
    return picture


PALETTE_RGB = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], dtype=np.uint8)[GREY % 4]
READS = {
    "RGB": (Image.fromarray(COLOUR), COLOUR),
    "grey": (Image.fromarray(GREY), grey_rgb(GREY)),
    "1 bit": (Image.fromarray(GREY > 99), grey_rgb((GREY > 99).astype(np.uint8) * 255)),
    "16-bit grey": (Image.fromarray(GREY.astype(np.uint16) * 257), grey_rgb(GREY)),
    "LA": (
        Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]),
        over_white(grey_rgb(GREY), ALPHA),
    ),
    "RGBA": (Image.fromarray(np.dstack([COLOUR, ALPHA])), over_white(COLOUR, ALPHA)),
    "palette": (palette_picture(), PALETTE_RGB),
    "palette with a transparent entry": (
        palette_picture(transparency=2),
        np.where((GREY % 4 == 2)[..., None], 255, PALETTE_RGB).astype(np.uint8),
    ),
    "palette with alpha": (
        palette_picture(transparency=bytes([255, 0, 255, 255])),
        np.where((GREY % 4 == 1)[..., None], 255, PALETTE_RGB).astype(np.uint8),
    ),
}


@pytest.mark.parametrize(("picture", "expected"), READS.values(), ids=READS)
def test_png_of_each_mode(tmp_path, picture, expected):
    got = load_image(saved(tmp_path, picture))
    assert (got.mode, got.size) == ("RGB", HW[::-1])
    assert np.array_equal(np.asarray(got), expected)


def test_half_transparent_is_blended_with_white(tmp_path):
    got = load_image(saved(tmp_path, Image.new("RGBA", (2, 2), (0, 0, 0, 128))))
    assert np.asarray(got)[0, 0] == pytest.approx(127, abs=1)


def test_cmyk_jpeg(tmp_path):
    flat = Image.new("RGB", HW[::-1], (200, 40, 90))
    got = load_image(saved(tmp_path, flat.convert("CMYK"), "picture.jpg", quality=100))
    assert np.abs(np.asarray(got).astype(int) - np.asarray(flat)).max() < 12


def test_32_bit_integers_in_16_bit_range(tmp_path):
    picture = Image.fromarray(GREY.astype(np.int32) * 257)
    assert np.array_equal(load_image(saved(tmp_path, picture, "picture.tif")), grey_rgb(GREY))


@pytest.mark.parametrize("name", ["picture.bmp", "picture.tif", "picture.webp", "picture.gif", "picture.ppm"])
def test_lossless_formats(tmp_path, name):
    picture = Image.fromarray(grey_rgb(GREY))
    got = load_image(saved(tmp_path, picture, name, **({"lossless": True} if name.endswith("webp") else {})))
    assert np.array_equal(got, picture)


def test_a_path_may_be_text(tmp_path):
    assert np.array_equal(load_image(str(saved(tmp_path, Image.fromarray(COLOUR)))), COLOUR)


@pytest.mark.parametrize(("array", "expected"), [(COLOUR, COLOUR), (GREY, grey_rgb(GREY))], ids=["colour", "grey"])
def test_arrays(array, expected):
    got = load_image(array)
    assert np.array_equal(got, expected)
    got.putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(load_image(array), expected)


def test_a_pil_image_is_copied_not_changed():
    picture = Image.fromarray(COLOUR)
    picture.info["exif"] = exif(6)
    got = load_image(picture)
    got.putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(picture, COLOUR)
    assert picture.info["exif"] == exif(6)


def test_a_phone_photo_with_a_second_frame_is_its_first(tmp_path):
    photo, depth = Image.new("RGB", (16, 16), (200, 30, 30)), Image.new("RGB", (16, 16), "blue")
    path = saved(tmp_path, photo, "photo.jpg", format="MPO", save_all=True, append_images=[depth])
    with Image.open(path) as opened:
        assert opened.n_frames == 2
    assert np.asarray(load_image(path))[..., 0].min() > 150


# -- EXIF --------------------------------------------------------------------------------------------------


def exif(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp", "photo.tif"])
def test_exif_rotation_gives_the_upright_frame(tmp_path, orientation, name):
    blocks = Image.fromarray(COLOUR[:3, :4]).resize((64, 48), Image.Resampling.NEAREST)
    options = {"quality": 95} if name.endswith("jpg") else {"lossless": True} if name.endswith("webp") else {}
    path = saved(tmp_path, blocks, name, exif=exif(orientation), **options)
    with Image.open(path) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    got = load_image(path)
    assert got.size == ((64, 48) if orientation < 5 else (48, 64))
    assert np.array_equal(got, expected)
    assert not got.info
    assert not got.getexif()
    assert np.array_equal(load_image(got), got)  # nobody turns it a second time


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.tif", "photo.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_is_in_the_header(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(COLOUR), name, exif=exif)
    picture = load_image(path)
    assert image_hw(path) == (picture.height, picture.width)


def test_the_size_needs_no_pixels(tmp_path):
    for name in ("cut.jpg", "cut.png"):
        path = saved(tmp_path, Image.fromarray(COLOUR), name)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ImageError):
            load_image(path)
        assert image_hw(path) == HW
    assert image_hw(COLOUR) == image_hw(Image.fromarray(COLOUR)) == HW
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        image_hw(tmp_path / "none.png")


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_does_not_exist_is_ignored(tmp_path, orientation):
    path = saved(tmp_path, Image.fromarray(COLOUR), exif=exif(orientation))
    assert np.array_equal(load_image(path), COLOUR)


@pytest.mark.parametrize(
    "damaged",
    [b"Exif\x00\x00", b"garbage", b"", exif(6)[:9], exif(6)[:15], b"Exif\x00\x00II*\x00\xff\xff\xff\x7f", b"\xff" * 40],
)
@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_matter(tmp_path, damaged, name):
    picture = Image.new("RGB", HW[::-1], (200, 40, 90))
    got = load_image(saved(tmp_path, picture, name, exif=damaged))
    assert got.size == picture.size
    assert np.abs(np.asarray(got).astype(int) - np.asarray(picture)).max() < 8


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp", "moving.png", "pages.tif"])
def test_animated_and_multi_page(tmp_path, name):
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1].copy())]
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=rf"Image '.*{name}' is animated or has several pages \(2 frames\)"):
        load_image(path)


def png_header(width, height):
    """A well-formed PNG that claims to be large and has no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [50_000, 11_000], ids=["an error to Pillow", "a warning to Pillow"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(ImageError, match=r"bomb\.png' is too large to decode safely: .*PIL\.Image\.MAX_IMAGE_PIXELS"):
        load_image(path)


def test_decompression_bomb_where_warnings_are_errors(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(11_000, 11_000))
    with pytest.raises(ImageError, match="too large to decode safely"):
        load_image(path)


def test_the_limit_is_pillows(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(COLOUR))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert load_image(path).size == HW[::-1]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match=r"too large"):
        load_image(Image.fromarray(COLOUR))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a picture in a format that Pillow reads"),
        (b"just text", "is not a picture in a format that Pillow reads"),
        (b"\x89PNG\r\n\x1a\n", "is not a picture in a format that Pillow reads"),
    ],
    ids=["zero bytes", "text", "signature only"],
)
def test_not_a_picture(tmp_path, content, message):
    (tmp_path / "picture.png").write_bytes(content)
    with pytest.raises(ImageError, match=rf"Image '.*picture\.png' {message}"):
        load_image(tmp_path / "picture.png")


def test_missing_and_folder(tmp_path):
    with pytest.raises(ImageError, match=r"Image '.*gone\.png' cannot be read: No such file or directory"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        load_image(tmp_path)


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.webp", "cut.gif", "cut.tif", "cut.bmp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated(tmp_path, name, share):
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = saved(tmp_path, noise, name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match=rf"Image '.*{name}' (cannot be read: |is not a picture)"):
        load_image(path)


@pytest.mark.parametrize("name", ["bad.png", "bad.jpg", "bad.webp", "bad.gif", "bad.tif", "bad.bmp"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_pictures_read_or_raise_image_error(tmp_path, name):
    rng = np.random.default_rng(1)
    path = saved(tmp_path, Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)), name)
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for _ in range(60):
        damaged = content.copy()
        where = rng.integers(0, min(len(damaged), 200), 3)
        damaged[where] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            assert load_image(path).mode == "RGB"
        except ImageError as error:
            assert name in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.fromarray(np.full(HW, 0.5, dtype=np.float32)), "mode F, which is not read; convert it to 8-bit RGB"),
        (Image.fromarray(np.full(HW, 70_000, dtype=np.int32)), "32-bit pixels of unknown range"),
        (Image.fromarray(np.full(HW, -1, dtype=np.int32)), "32-bit pixels of unknown range"),
        (
            ImageCms.profileToProfile(
                Image.fromarray(COLOUR), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
            ),
            "mode LAB",
        ),
        (Image.new("RGB", (0, 4)), "has no pixels: its size is 0x4"),
    ],
    ids=["float", "32 bit", "negative", "LAB", "no pixels"],
)
def test_pixels_that_are_not_read(picture, message):
    with pytest.raises(ImageError, match=f"The image .*{message}"):
        load_image(picture)


@pytest.mark.parametrize(
    "array",
    [
        COLOUR.astype(np.float32),
        COLOUR.astype(np.int64),
        GREY > 9,
        np.dstack([COLOUR, GREY]),
        GREY[..., None],
        np.zeros((2, 3, 4, 3), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
        COLOUR.transpose(2, 0, 1),
    ],
    ids=["float", "int64", "bool", "RGBA", "one channel", "batch", "empty", "channels first"],
)
def test_arrays_of_another_type_or_shape(array):
    with pytest.raises(ImageError, match=r"must be uint8 of shape \(H, W\) or \(H, W, 3\), got .*\("):
        load_image(array)


@pytest.mark.parametrize("source", [None, 5, b"picture.png", ["picture.png"]])
def test_sources_of_another_type(source):
    with pytest.raises(ImageError, match=r"must be a file path, a PIL image or a numpy array, got \w+\."):
        load_image(source)
