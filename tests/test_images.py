"""Image files of every kind, and how they are found. Pictures are written by Pillow, expected pixels by hand."""

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin, features
from small_models import small_model

from ssd_zoo.cli.main import main
from ssd_zoo.data import find_images, read_image
from ssd_zoo.data.images import MAX_PIXELS, image_size
from ssd_zoo.prediction.sources import read_pixels

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)

# A picture two wide and three high that looks different however it is turned.
UPRIGHT = [[RED, GREEN], [BLUE, WHITE], [BLACK, GREY]]
# What a camera stores of it, for each value of the EXIF tag (Exif 2.32, table "Orientation").
STORED = {
    1: UPRIGHT,
    2: [[GREEN, RED], [WHITE, BLUE], [GREY, BLACK]],  # row 0 top, column 0 right
    3: [[GREY, BLACK], [WHITE, BLUE], [GREEN, RED]],  # bottom, right
    4: [[BLACK, GREY], [BLUE, WHITE], [RED, GREEN]],  # bottom, left
    5: [[RED, BLUE, BLACK], [GREEN, WHITE, GREY]],  # row 0 left, column 0 top
    6: [[GREEN, WHITE, GREY], [RED, BLUE, BLACK]],  # right, top
    7: [[GREY, WHITE, GREEN], [BLACK, BLUE, RED]],  # right, bottom
    8: [[BLACK, BLUE, RED], [GREY, WHITE, GREEN]],  # left, bottom
}


def picture(rows) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def pixels(image: torch.Tensor) -> list[list[tuple[int, ...]]]:
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    return [[tuple(pixel) for pixel in row] for row in image.permute(1, 2, 0).tolist()]


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", ["png", "tiff", "webp"])
def test_exif_orientation(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[274] = orientation
    picture(STORED[orientation]).save(tmp_path / f"a.{ending}", exif=exif, lossless=True)
    assert pixels(read_image(tmp_path / f"a.{ending}")) == UPRIGHT


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGBA", "CMYK"])
def test_exif_orientation_of_raw_tiffs(tmp_path, orientation, mode):
    """Pillow maps them into memory where it is given their path."""
    exif, grey = Image.Exif(), np.array(STORED[orientation], np.uint8)[..., 1]
    exif[274] = orientation
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "a.tif", exif=exif)
    expected = np.array(UPRIGHT)[..., 1].tolist()
    assert read_image(tmp_path / "a.tif")[1].tolist() == expected
    with Image.open(tmp_path / "a.tif") as opened:
        assert read_pixels(opened)[1].tolist() == expected
        assert str(opened.filename) == str(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_of_jpeg(tmp_path, orientation):
    # JPEG blurs colours over blocks of 8 × 8 pixels, so each pixel becomes two blocks wide.
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.array(STORED[orientation], dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    read = read_image(tmp_path / "a.jpg")
    assert read.shape == (3, 48, 32)
    expected = torch.tensor(UPRIGHT).permute(2, 0, 1)
    torch.testing.assert_close(read[:, 8::16, 8::16].long(), expected, atol=6, rtol=0)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["jpg", "png", "tiff", "webp", "avif", "heic"])
def test_size_is_that_of_the_pixels(tmp_path, orientation, kind):
    file = tmp_path / f"a.{kind}"
    if kind == "avif" and not features.check("avif"):
        pytest.skip("NO AVIF in this Pillow")
    if kind == "heic":
        pytest.importorskip("pillow_heif", reason='NO HEIC: pip install "ssd_zoo[images]"').register_heif_opener()
    exif = Image.Exif()
    exif[274] = orientation
    picture(UPRIGHT).resize((64, 32)).save(file, exif=exif, **({"format": "HEIF"} if kind == "heic" else {}))
    read = read_image(file)
    assert image_size(file) == read.shape[1:]
    # A HEIC's EXIF tag does not count: its pixels are turned by another field.
    assert tuple(read.shape[1:]) == ((64, 32) if orientation > 4 and kind != "heic" else (32, 64))


# Format, ending, modes and options of Pillow, of every kind of image that is read and that Pillow writes.
WRITTEN = [
    (kind, ending, mode, options)
    for kind, ending, modes, options in (
        ("JPEG", ".jpg", ("L", "RGB", "CMYK"), {}),
        ("PNG", ".png", ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"), {}),
        ("WEBP", ".webp", ("L", "RGB", "RGBA"), {}),
        ("TIFF", ".tif", ("1", "L", "LA", "I;16", "P", "RGB", "RGBA", "CMYK", "YCbCr"), {}),
        *(("TIFF", ".tif", ("RGB",), {"compression": way}) for way in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")),
        ("GIF", ".gif", ("1", "L", "P", "RGB", "RGBA"), {}),
        ("BMP", ".bmp", ("1", "L", "P", "RGB", "RGBA"), {}),
        ("DIB", ".dib", ("1", "L", "P", "RGB", "RGBA"), {}),
        ("JPEG2000", ".jp2", ("L", "LA", "I;16", "RGB", "RGBA"), {}),
        ("PPM", ".ppm", ("1", "L", "I;16", "RGB"), {}),
        *(("TGA", ".tga", ("L", "LA", "P", "RGB", "RGBA"), {"rle": rle}) for rle in (False, True)),
        ("PCX", ".pcx", ("1", "L", "P", "RGB"), {}),
        ("SGI", ".rgb", ("L", "RGB", "RGBA"), {}),
        ("QOI", ".qoi", ("RGB", "RGBA"), {}),
        ("AVIF", ".avif", ("RGB", "RGBA"), {}),
        ("HEIF", ".heic", ("RGB",), {}),
        # Several frames, of which the second is smaller where the format allows it.
        *((kind, ending, ("RGB",), {"save_all": True})
          for kind, ending in (("MPO", ".mpo"), ("GIF", ".gif"), ("TIFF", ".tif"), ("WEBP", ".webp"), ("PNG", ".png"))),
    )
    for mode in modes
]  # fmt: skip


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("kind", "ending", "mode", "options"), WRITTEN)
def test_size_is_that_of_the_pixels_of_every_format(tmp_path, kind, ending, mode, options, orientation):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason='NO HEIC: pip install "ssd_zoo[images]"').register_heif_opener()
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    exif, file = Image.Exif(), tmp_path / f"a{ending}"
    exif[274] = orientation
    image = Image.new("I;16", (64, 32), 90) if mode == "I;16" else Image.new("L", (64, 32), 90).convert(mode)
    second = image.resize((16, 16)) if kind in ("TIFF", "MPO") else image.rotate(180)
    image.save(
        file, kind, exif=exif, **options, **({"append_images": [second]} if options == {"save_all": True} else {})
    )
    try:
        Image.open(io.BytesIO(file.read_bytes())).load()
    except OSError:
        pytest.skip(f"this Pillow does not read the {kind} of {mode} that it writes")
    read = read_image(file)
    assert image_size(file) == read.shape[1:]
    # Other formats have no EXIF, or another field that turns.
    turned = orientation == 6 and kind in ("JPEG", "PNG", "WEBP", "TIFF", "MPO", "AVIF")
    assert tuple(read.shape[1:]) == ((64, 32) if turned else (32, 64))


@pytest.mark.slow
def test_size_is_that_of_the_pixels_of_pillows_own_images():
    folder = os.environ.get("SSD_ZOO_PILLOW_IMAGES")
    if not folder:
        pytest.skip("PILLOW'S IMAGES ARE NOT READ: set SSD_ZOO_PILLOW_IMAGES to Tests/images of its source")
    sizes, read = {}, {}
    for file in find_images([folder]):
        for found, function in ((sizes, image_size), (read, lambda one: read_image(one).shape[1:])):
            with contextlib.suppress(ValueError):
                found[file.name] = tuple(function(file))
    assert len(read) > 300
    assert {name: sizes.get(name) for name in read} == read


def test_orientation_behind_the_pixels_of_a_png(tmp_path):
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[274] = 6
    picture(STORED[6]).save(buffer, "PNG")
    head, end = buffer.getvalue()[:-12], buffer.getvalue()[-12:]
    data = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = (len(data) - 4).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(head + chunk + end)
    assert pixels(read_image(tmp_path / "a.png")) == UPRIGHT
    assert image_size(tmp_path / "a.png") == (3, 2)


def test_metadata_of_a_wrong_type_do_not_matter(tmp_path):
    # Tag 271, the camera's maker, is said to be a number, and holds none that fits; 274 is the orientation.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x07\0\0\0\x03abc\0\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    picture(UPRIGHT).resize((64, 32)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (3, 64, 32)
    assert image_size(tmp_path / "a.jpg") == (64, 32)


def test_metadata_that_cannot_be_read_are_none(tmp_path):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Raw profile type exif", "\nexif\n    four\nthese are no hexadecimal digits\n")
    picture(UPRIGHT).save(tmp_path / "a.png", pnginfo=texts)
    assert pixels(read_image(tmp_path / "a.png")) == UPRIGHT
    assert image_size(tmp_path / "a.png") == (3, 2)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PDF", "DDS"])
def test_formats_that_are_not_listed_are_refused(tmp_path, kind):
    picture(UPRIGHT).save(tmp_path / "a.jpg", format=kind)
    for read in (read_image, image_size):
        with pytest.raises(ValueError, match=r"a\.jpg is not an image that can be read.*JPEG, PNG.*save it as"):
            read(tmp_path / "a.jpg")


@pytest.mark.parametrize("side", [8000, 20_000])
def test_more_pixels_than_allowed(tmp_path, side, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**40)  # SAHI, in other tests, takes the limit away for good.
    file = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(file)
    for read in (read_image, image_size):
        with pytest.raises(
            ValueError, match=rf"bomb\.png.*{side} × {side} pixels, and {MAX_PIXELS} are allowed.*--max-p"
        ):
            read(file)
    assert image_size(file, max_pixels=side**2) == (side, side)
    assert Image.MAX_IMAGE_PIXELS == 2**40, "Pillow's own limit is as before"


def test_more_pixels_by_wish(tmp_path):
    picture(UPRIGHT).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=6).shape == (3, 3, 2)
    with pytest.raises(ValueError, match="2 × 3 pixels, and 5 are allowed"):
        read_image(tmp_path / "a.png", max_pixels=5)


def test_tiles_are_decoded_whole_so_they_are_counted(tmp_path):
    """A TIFF of 10 × 10 pixels whose tile has 32768 × 32768, which would take a gigabyte."""
    tags = {256: 10, 257: 10, 258: 8, 259: 1, 262: 1, 277: 1, 322: 32768, 323: 32768, 324: 200, 325: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 68)
    with pytest.raises(ValueError, match=r"a\.tif can't be read: its tiles have 32768 × 32768 pixels, and 54000000"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGB", "P", "LA", "I;16"])
def test_strips_change_nothing(tmp_path, mode, monkeypatch):
    rows = np.random.default_rng(0).integers(0, 255, (7, 5, 4), dtype=np.uint8)
    rows = rows[..., 0].astype(np.uint16) * 200 if mode == "I;16" else rows[..., :2] if mode == "LA" else rows[..., :3]
    image = Image.fromarray(rows)
    (image.convert("P") if mode == "P" else image).save(
        tmp_path / "a.png", **({"transparency": 3} if mode == "P" else {})
    )
    whole = read_image(tmp_path / "a.png")
    monkeypatch.setattr("ssd_zoo.data.pixels._STRIP", 10)
    assert torch.equal(read_image(tmp_path / "a.png"), whole)


@pytest.mark.parametrize("brand", ["heic", "mif1", "avif", "avis"])
@pytest.mark.parametrize("there", [True, False])
def test_heic_and_avif_name_what_is_missing(tmp_path, there, brand, monkeypatch):
    if there:
        pytest.importorskip("pillow_heif")
    else:
        # A Pillow that reads neither.
        monkeypatch.setattr("ssd_zoo.data.images._formats", lambda: ["JPEG", "PNG"])
        monkeypatch.setattr("ssd_zoo.data.images.find_spec", lambda name: None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftyp" + brand.encode() + b"\0\0\0\0mif1heic" + bytes(100))
    way = r"that is broken or cut off" if there else r"pip install \"ssd_zoo\[images\]\""
    with pytest.raises(ValueError, match=rf"a\.heic.*{way}"):
        read_image(*find_images([tmp_path]))


@pytest.mark.parametrize("command", ["detect", "data"])
def test_a_folder_of_heic_alone_without_the_package(tmp_path, command, monkeypatch, capsys):
    monkeypatch.setattr("ssd_zoo.data.images.find_spec", lambda name: None)
    monkeypatch.setattr("ssd_zoo.data.images._formats", lambda: ["JPEG", "PNG"])
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    folder, output = tmp_path / "photos", ["--output", str(tmp_path / "out")]
    folder.mkdir()
    for name in ("a.HEIC", "b.heic"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
        (folder / name).with_suffix(".txt").write_text("0 .5 .5 .4 .2\n")
    (folder / "classes.txt").write_text("cat\n")
    assert main([command, str(folder), *output]) == (1 if command == "detect" else 2)
    said = "".join(capsys.readouterr())
    for name in ("a.HEIC", "b.heic"):
        assert (
            f'{name} is not an image that can be read. It is a HEIC or AVIF image: pip install "ssd_zoo[images]"'
            in said
        )


def test_unknown_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[274] = 9
    picture(UPRIGHT).save(tmp_path / "a.png", exif=exif)
    assert pixels(read_image(tmp_path / "a.png")) == UPRIGHT


def test_grey(tmp_path):
    Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert pixels(read_image(tmp_path / "a.png")) == [[BLACK, (100, 100, 100), WHITE]]


def test_one_bit(tmp_path):
    Image.fromarray(np.array([[0, 255, 0]], dtype=np.uint8)).convert("1").save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "1"
    assert pixels(read_image(tmp_path / "a.png")) == [[BLACK, WHITE, BLACK]]


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_palette(tmp_path, ending):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.frombytes(bytes([2, 0, 1]))
    image.save(tmp_path / f"a.{ending}")
    assert pixels(read_image(tmp_path / f"a.{ending}")) == [[BLUE, RED, GREEN]]


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_transparent_colour_of_a_palette(tmp_path, ending):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.frombytes(bytes([2, 0, 1]))
    image.save(tmp_path / f"a.{ending}", transparency=0)
    assert pixels(read_image(tmp_path / f"a.{ending}")) == [[BLUE, WHITE, GREEN]]


def test_transparent_colour_of_rgb(tmp_path):
    picture([[RED, GREEN]]).save(tmp_path / "a.png", transparency=GREEN)
    assert pixels(read_image(tmp_path / "a.png")) == [[RED, WHITE]]


def test_grey_with_alpha(tmp_path):
    Image.fromarray(np.array([[[100, 255], [100, 0]]], dtype=np.uint8), "LA").save(tmp_path / "a.png")
    assert pixels(read_image(tmp_path / "a.png")) == [[(100, 100, 100), WHITE]]


def test_alpha_is_laid_on_white(tmp_path):
    # One fifth of red and four fifths of white: 255, and 0.8 · 255 = 204.
    Image.fromarray(np.array([[[*RED, 255], [*RED, 0], [*RED, 51]]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert pixels(read_image(tmp_path / "a.png")) == [[RED, WHITE, (255, 204, 204)]]


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_16_bit_grey_keeps_its_range(tmp_path, ending):
    # 65535 = 255 · 257
    Image.fromarray(np.array([[0, 257, 100 * 257, 65535]], dtype=np.uint16)).save(tmp_path / f"a.{ending}")
    expected = [[BLACK, (1, 1, 1), (100, 100, 100), WHITE]]
    assert pixels(read_image(tmp_path / f"a.{ending}")) == expected


def test_32_bit_tiff_with_16_bit_values(tmp_path):
    Image.fromarray(np.array([[0, 100 * 257, 65535]], dtype=np.int32)).save(tmp_path / "a.tiff")
    assert pixels(read_image(tmp_path / "a.tiff")) == [[BLACK, (100, 100, 100), WHITE]]


@pytest.mark.parametrize(("values", "found"), [([0, 70000], "0 to 70000"), ([-1, 5], "-1 to 5")])
def test_32_bit_tiff_of_unknown_range(tmp_path, values, found):
    Image.fromarray(np.array([values], dtype=np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=rf"a\.tiff.*{found}.*save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tiff")


def test_float_tiff(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a\.tiff.*floating-point.*save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tiff")


def test_cmyk_jpeg(tmp_path):
    # Cyan ink alone leaves green and blue, yellow ink alone red and green, full black nothing.
    inks = np.array([[[255, 0, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], dtype=np.uint8)
    Image.fromarray(inks.repeat(16, 0).repeat(16, 1), "CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    expected = torch.tensor([[[0, 255, 255], [255, 255, 0], BLACK, WHITE]]).permute(2, 0, 1)
    torch.testing.assert_close(read_image(tmp_path / "a.jpg")[:, 8::16, 8::16].long(), expected, atol=6, rtol=0)


def test_first_frame_of_an_animation(tmp_path):
    frames = [picture([[colour, colour]]) for colour in (GREEN, RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixels(read_image(tmp_path / "a.gif")) == [[GREEN, GREEN]]


def test_the_kind_is_read_from_the_file_not_from_its_name(tmp_path):
    picture(UPRIGHT).save(tmp_path / "a", format="PNG")
    (tmp_path / "a").rename(tmp_path / "a.jpg")
    assert pixels(read_image(str(tmp_path / "a.jpg"))) == UPRIGHT


def test_grey_photograph(test_data):
    # Of coco128's pictures this one alone is stored in grey.
    image = read_image(test_data / "coco128/images/000000000086.jpg")
    assert image.shape == (3, 640, 512)
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])
    assert image.float().std() > 30


def test_truncated_jpeg(tmp_path, photo):
    data = photo.read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"half\.jpg can't be read: .*truncated"):
        read_image(tmp_path / "half.jpg")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"Dear diary,\n"], ids=["empty", "cut header", "text"])
def test_no_image(tmp_path, data):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.jpg (is not an image|can't be read)"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("header", [b"P6 5x 4 255\n", b"DDS ", b"qoif\0\0\0\1\0\0\0\1\3\0"])
def test_whatever_pillow_raises_the_file_is_named(tmp_path, header):
    (tmp_path / "a.bin").write_bytes(header)
    with pytest.raises(ValueError, match=r"a\.bin"):
        read_image(tmp_path / "a.bin")


def test_folder_is_no_image(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="NO PIPES: images that are pipes are not tested")
def test_pipes_and_links_in_a_circle_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "ring.jpg").symlink_to("ring.jpg")
    # Nothing writes to the pipe, so that reading would wait for ever.
    for name, reason in [("pipe.jpg", "it is a pipe or a device"), ("ring.jpg", "Too many levels of symbolic links.")]:
        with pytest.raises(ValueError, match=f"{name} can't be read: {reason}"):
            read_image(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        read_image(tmp_path / "gone.jpg")


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A folder with images, and with what is none."""
    files = ["b.jpg", "a.PNG", "notes.txt", "clip.mpg", "table.h5", "sub/c d.webp", "sub/é.tif", "x[1].jpg"]
    files += [".hidden.jpg", ".cache/e.jpg", "sub/._c.jpg"]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.jpg").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(files) -> list[str]:
    return [file.as_posix() for file in files]


def test_images_of_a_folder(tree):
    assert names(find_images(["."])) == ["a.PNG", "b.jpg", "sub/c d.webp", "sub/é.tif", "x[1].jpg"]
    assert find_images([tree / "sub"]) == [tree / "sub/c d.webp", tree / "sub/é.tif"]


def test_linked_folders_are_followed_and_loops_end(tree):
    (tree / ".cache/up").symlink_to(tree)
    (tree / "also").symlink_to(".cache")
    (tree / "empty/sub").symlink_to(tree / "sub")
    (tree / "sub/loop").symlink_to(tree / "sub")
    (tree / "gone.jpg").symlink_to("nowhere")
    found = ["a.PNG", "also/e.jpg", "b.jpg", "gone.jpg", "sub/c d.webp", "sub/é.tif", "x[1].jpg"]
    assert names(find_images(["."])) == found
    assert names(find_images(["empty"])) == ["empty/sub/c d.webp", "empty/sub/é.tif"]


def test_hidden_folder_that_was_asked_for(tree):
    assert names(find_images([".cache"])) == [".cache/e.jpg"]


def test_files_are_listed_in_the_order_given_whatever_they_hold(tree):
    assert names(find_images(["notes.txt", "a.PNG", ".hidden.jpg"])) == ["notes.txt", "a.PNG", ".hidden.jpg"]


def test_patterns(tree):
    assert names(find_images(["*.jpg"])) == ["b.jpg", "x[1].jpg"]
    assert names(find_images(["?.*"])) == ["a.PNG", "b.jpg"]
    assert names(find_images(["**/*.[wt][ei][bf]*"])) == ["sub/c d.webp", "sub/é.tif"]


def test_name_that_looks_like_a_pattern(tree):
    assert names(find_images(["x[1].jpg"])) == ["x[1].jpg"]


def test_each_file_once(tree):
    sources = ["b.jpg", "./b.jpg", str(tree / "b.jpg"), os.path.join("sub", "..", "b.jpg"), "b*", Path("b.jpg")]
    assert names(find_images(sources)) == ["b.jpg"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("gone.jpg", r"gone\.jpg is not a file or folder, nor a pattern"),
        ("*.bmp", r"\*\.bmp is not a file or folder, nor a pattern"),
        ("empty", "empty holds no image"),
        ("folder.jpg", r"folder\.jpg holds no image\.$"),
        ("videos", r"videos holds no image\. It holds videos, .*: videos/\*\.MP4, or videos/a\.MP4\.$"),
    ],
)
def test_source_without_images(tree, source, why):
    (tree / "videos").mkdir()
    (tree / "videos/a.MP4").touch()
    with pytest.raises(FileNotFoundError, match=why):
        find_images(["b.jpg", source])
