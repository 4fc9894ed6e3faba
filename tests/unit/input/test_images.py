"""Every kind of image comes out in right colours and the right way up, or says why it cannot."""

from __future__ import annotations

import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    bmp32,
    corners,
    encode,
    jpeg,
    png,
    png_that_claims,
    quadrants,
    tiff,
    with_orientation,
)
from PIL import Image, PngImagePlugin

from mint_stream.input.images import FORMATS, ImageError, decode

UPRIGHT = np.array([RED, GREEN, BLUE, YELLOW])
LOSSLESS = {"PNG": {}, "BMP": {}, "GIF": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}
SIXTEEN_BITS = np.linspace(0, 65535, 64 * 48).round().astype(np.uint16).reshape(48, 64)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    image = decode(encode(quadrants(), kind, **LOSSLESS[kind]))
    np.testing.assert_array_equal(image.rgb_HW3, quadrants())
    assert (image.width, image.height) == (64, 48)
    assert image.rgb_HW3.dtype == np.uint8
    assert image.rgb_HW3.flags.writeable
    assert image.rgb_HW3.flags.c_contiguous


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "WEBP"])
def test_lossy_formats_keep_the_colours(kind: str) -> None:
    image = decode(encode(quadrants(), kind, quality=90))
    np.testing.assert_allclose(corners(image.rgb_HW3), UPRIGHT, atol=8)
    assert image.rgb_HW3.shape == (48, 64, 3)


def test_the_content_decides_and_not_the_name() -> None:
    for data in (encode(quadrants(), "PNG"), encode(quadrants(), "BMP")):
        np.testing.assert_array_equal(decode(data).rgb_HW3, quadrants())


# The stored pixels that, held as EXIF says, show the quadrants upright.
STORED = {
    1: quadrants(),
    2: quadrants()[:, ::-1],
    3: quadrants()[::-1, ::-1],
    4: quadrants()[::-1],
    5: quadrants().transpose(1, 0, 2),
    6: np.rot90(quadrants(), 1),
    7: quadrants()[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(quadrants(), -1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("min_short_side", [None, 12])
def test_exif_rotation_is_applied_once(
    kind: str, orientation: int, min_short_side: int | None
) -> None:
    stored = np.ascontiguousarray(STORED[orientation])
    image = decode(with_orientation(stored, kind, orientation), min_short_side=min_short_side)
    np.testing.assert_allclose(corners(image.rgb_HW3), UPRIGHT, atol=8)
    assert (image.width, image.height) == (64, 48)
    assert image.rgb_HW3.shape == ((48, 64, 3) if min_short_side is None else (12, 16, 3))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    image = decode(with_orientation(quadrants(), "PNG", orientation))
    np.testing.assert_array_equal(image.rgb_HW3, quadrants())


def test_broken_exif_costs_the_rotation_only() -> None:
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08"):
        image = decode(encode(quadrants(), "JPEG", exif=exif, quality=95))
        np.testing.assert_allclose(corners(image.rgb_HW3), UPRIGHT, atol=8)


class TestColours:
    @pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
    def test_cmyk(self, kind: str) -> None:
        data = encode(Image.fromarray(quadrants()).convert("CMYK"), kind)
        np.testing.assert_allclose(corners(decode(data).rgb_HW3), UPRIGHT, atol=8)

    def test_palette(self) -> None:
        image = Image.fromarray(quadrants()).quantize(4)
        for kind in ("PNG", "GIF", "TIFF", "BMP"):
            np.testing.assert_array_equal(decode(encode(image, kind)).rgb_HW3, quadrants())

    @pytest.mark.parametrize("kind", ["PNG", "GIF"])
    def test_palette_with_a_transparent_entry_is_laid_over_white(self, kind: str) -> None:
        image = Image.fromarray(quadrants()).quantize(4)
        data = encode(image, kind, transparency=image.getpixel((0, 0)))
        expected = [(255, 255, 255), GREEN, BLUE, YELLOW]
        np.testing.assert_array_equal(corners(decode(data).rgb_HW3), expected)

    def test_palette_with_half_transparent_entries(self) -> None:
        image = Image.fromarray(quadrants()).quantize(4)
        data = encode(image, "PNG", transparency=bytes([128] * 4))
        expected = np.rint(UPRIGHT * (128 / 255) + 127)
        np.testing.assert_allclose(corners(decode(data).rgb_HW3), expected, atol=1)

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
    def test_alpha_is_laid_over_white(self, kind: str) -> None:
        alpha_HW1 = np.full((48, 64, 1), 255, np.uint8)
        alpha_HW1[:24, :32] = 0  # the red quadrant disappears,
        alpha_HW1[:24, 32:] = 51  # the green one is pale
        data = encode(np.concatenate([quadrants(), alpha_HW1], 2), kind, **LOSSLESS[kind])
        pale = [round(value * 0.2 + 255 * 0.8) for value in GREEN]
        expected = [(255, 255, 255), pale, BLUE, YELLOW]
        np.testing.assert_allclose(corners(decode(data).rgb_HW3), expected, atol=1)

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "BMP", "GIF", "PPM"])
    def test_grey(self, kind: str) -> None:
        grey_HW = np.repeat(np.array([[0, 90, 255]], np.uint8), 20, 1).repeat(40, 0)
        rgb_HW3 = decode(encode(grey_HW, kind)).rgb_HW3
        np.testing.assert_array_equal(rgb_HW3[20, [5, 30, 55]], [[0] * 3, [90] * 3, [255] * 3])

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_grey_with_alpha(self, kind: str) -> None:
        alpha = Image.new("L", (8, 8), 0)
        alpha.putpixel((7, 7), 255)
        image = Image.merge("LA", [Image.new("L", (8, 8), 100), alpha])
        rgb_HW3 = decode(encode(image, kind)).rgb_HW3
        assert (rgb_HW3[:7] == 255).all()
        assert (rgb_HW3[7, 7] == 100).all()

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "BMP"])
    def test_black_and_white(self, kind: str) -> None:
        image = Image.fromarray(quadrants()).convert("L").point(lambda v: 255 * (v > 128), "1")
        rgb_HW3 = decode(encode(image, kind)).rgb_HW3
        assert np.unique(rgb_HW3).tolist() == [0, 255]
        np.testing.assert_array_equal(corners(rgb_HW3)[3], [255, 255, 255])

    @pytest.mark.parametrize("data", [png(SIXTEEN_BITS), tiff(SIXTEEN_BITS, 1)])
    def test_16_bit_grey_is_scaled_and_not_clipped(self, data: bytes) -> None:
        expected_HW = np.rint(SIXTEEN_BITS / 257)
        rgb_HW3 = decode(data).rgb_HW3
        for channel in range(3):
            np.testing.assert_array_equal(rgb_HW3[..., channel], expected_HW)

    @pytest.mark.parametrize("file", [png, lambda values: tiff(values, 2)], ids=["png", "tiff"])
    def test_16_bit_rgb_is_scaled_and_not_clipped(self, file) -> None:  # type: ignore[no-untyped-def]
        values_HW3 = np.stack([SIXTEEN_BITS, SIXTEEN_BITS[::-1], SIXTEEN_BITS // 2], 2)
        difference = decode(file(values_HW3)).rgb_HW3 - values_HW3 / 257
        assert np.abs(difference).max() <= 1

    def test_16_bit_grey_and_rgb_with_alpha(self) -> None:
        opaque, clear = np.full_like(SIXTEEN_BITS, 65535), np.zeros_like(SIXTEEN_BITS)
        for values in ([SIXTEEN_BITS], [SIXTEEN_BITS] * 3):
            shown = decode(png(np.stack([*values, opaque], 2))).rgb_HW3
            assert np.abs(shown[..., 0] - SIXTEEN_BITS / 257).max() <= 1
            clear[0, 0] = 65535
            rgb_HW3 = decode(png(np.stack([*values, clear], 2))).rgb_HW3
            assert (rgb_HW3[1:] == 255).all()

    @pytest.mark.parametrize(("white", "scale"), [(1.0, 1.0), (255.0, 1.0), (65535.0, 1.0)])
    def test_floating_point_grey(self, white: float, scale: float) -> None:
        values_HW = np.linspace(0, white, 256, dtype=np.float32).reshape(16, 16)
        rgb_HW3 = decode(tiff(values_HW, 1)).rgb_HW3
        np.testing.assert_array_equal(rgb_HW3[..., 0], np.arange(256).reshape(16, 16))

    def test_floating_point_with_gaps_is_no_disaster(self) -> None:
        values_HW = np.array([[0.0, np.nan, 0.5, 1.0]], np.float32)
        assert decode(tiff(values_HW, 1)).rgb_HW3[0, :, 0].tolist() == [0, 0, 128, 255]

    def test_a_colour_key_in_an_rgb_png_is_laid_over_white(self) -> None:
        key = b"".join(value.to_bytes(2, "big") for value in RED)
        rgb_HW3 = decode(png(quadrants(), (b"tRNS", key))).rgb_HW3
        np.testing.assert_array_equal(corners(rgb_HW3), [(255, 255, 255), GREEN, BLUE, YELLOW])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_animations_and_stacks_the_first_image_counts(kind: str) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in (GREEN, BLUE)]
    options = LOSSLESS[kind] | {"save_all": True, "append_images": frames}
    image = decode(encode(quadrants(), kind, **options))
    np.testing.assert_allclose(corners(image.rgb_HW3), UPRIGHT, atol=1)


def test_of_a_jpeg_with_several_pictures_the_first_counts() -> None:
    second = [Image.new("RGB", (64, 48), BLUE)]
    data = encode(quadrants(), "MPO", save_all=True, append_images=second, quality=95)
    for min_short_side in (None, 12):
        image = decode(data, min_short_side=min_short_side)
        np.testing.assert_allclose(corners(image.rgb_HW3), UPRIGHT, atol=8)
        assert (image.width, image.height) == (64, 48)


class TestSizes:
    @pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG"])
    @pytest.mark.parametrize("min_short_side", [None, 224])
    def test_one_pixel(self, kind: str, min_short_side: int | None) -> None:
        data = encode(Image.new("RGB", (1, 1), RED), kind, **LOSSLESS.get(kind, {}))
        image = decode(data, min_short_side=min_short_side)
        np.testing.assert_allclose(image.rgb_HW3, [[RED]], atol=3)
        assert (image.width, image.height) == (1, 1)

    @pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (3000, 7)])
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    @pytest.mark.parametrize("min_short_side", [None, 224])
    def test_extreme_aspects(
        self, size: tuple[int, int], kind: str, min_short_side: int | None
    ) -> None:
        data = encode(Image.new("RGB", size, BLUE), kind)
        image = decode(data, min_short_side=min_short_side)
        assert (image.width, image.height) == size
        assert image.rgb_HW3.shape == (size[1], size[0], 3)

    @pytest.mark.parametrize("claimed", [(100_000, 100_000), (2**31 - 1, 1), (40_000, 4_000)])
    def test_a_decompression_bomb_is_refused_before_it_is_decoded(
        self, claimed: tuple[int, int]
    ) -> None:
        with pytest.raises(ImageError, match=r"too large to decode|the limit is 100\.0 million"):
            decode(png_that_claims(*claimed))

    def test_the_limit_is_exact_and_names_the_size(self) -> None:
        data = encode(quadrants(), "PNG")
        assert decode(data, max_pixels=64 * 48).width == 64
        with pytest.raises(ImageError, match=r"64 x 48 = 0\.0 million pixels"):
            decode(data, max_pixels=64 * 48 - 1)

    @settings(max_examples=60, deadline=None)
    @given(
        width=st.integers(1, 400),
        height=st.integers(1, 400),
        wanted=st.integers(1, 200),
        kind=st.sampled_from(["JPEG", "PNG"]),
    )
    def test_a_reduced_image_is_large_enough_and_not_much_larger(
        self, width: int, height: int, wanted: int, kind: str
    ) -> None:
        data = encode(Image.new("RGB", (width, height), GREEN), kind)
        image = decode(data, min_short_side=wanted)
        rows, columns = image.rgb_HW3.shape[:2]
        assert (image.width, image.height) == (width, height)
        assert min(rows, columns) >= min(wanted, width, height)
        assert min(rows, columns) <= max(2 * wanted, 1) or min(rows, columns) == min(width, height)
        assert columns / rows == pytest.approx(width / height, rel=1.0 / min(rows, columns))
        np.testing.assert_allclose(corners(image.rgb_HW3), [GREEN] * 4, atol=8)


class TestDamage:
    def test_no_bytes(self) -> None:
        with pytest.raises(ImageError, match=r"empty \(0 bytes\)"):
            decode(b"")

    @pytest.mark.parametrize(
        "data", [b"hello", b"\0" * 1000, b"<svg></svg>", b"%PDF-1.7", b"GIF", bytes(range(256))]
    )
    def test_no_image(self, data: bytes) -> None:
        with pytest.raises(ImageError, match="not an image in a supported format"):
            decode(data)

    def test_formats_outside_the_list_are_not_opened(self) -> None:
        data = encode(quadrants(), "ICO")
        with pytest.raises(ImageError, match="not an image in a supported format"):
            decode(data)
        assert "EPS" not in FORMATS  # would call an interpreter

    @pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG", "AVIF"])
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
    def test_truncated(self, kind: str, share: float) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        data = encode(noise, kind, **LOSSLESS.get(kind, {}))
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            decode(data[: int(len(data) * share)])

    def test_a_truncated_jpeg_says_so(self) -> None:
        data = encode(quadrants(400, 300), "JPEG")
        with pytest.raises(ImageError, match="the image is truncated"):
            decode(data[: len(data) // 2])

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_flipped_bytes_decode_or_say_why_and_nothing_else(self, draw: st.DataObject) -> None:
        kind = draw.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
        data = bytearray(encode(quadrants(), kind))
        for _ in range(draw.draw(st.integers(1, 8))):
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
        try:
            image = decode(bytes(data), max_pixels=1_000_000)
        except ImageError:
            return
        assert image.rgb_HW3.shape == (image.height, image.width, 3)


def test_several_threads_decode_at_the_same_time() -> None:
    files = [jpeg(number) for number in range(32)] + [encode(quadrants(), "WEBP")]
    alone = [decode(data).rgb_HW3 for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = [image.rgb_HW3 for image in pool.map(decode, files * 4)]
    for image, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(image, expected)


class TestAlphaThatMeansNothing:
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
    def test_an_alpha_of_zeros_only_hides_nothing(self, kind: str) -> None:
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        rgba_HW4 = np.dstack([quadrants(), np.zeros((48, 64), np.uint8)])
        np.testing.assert_array_equal(
            decode(encode(rgba_HW4, kind, **options)).rgb_HW3, quadrants()
        )

    def test_a_palette_of_transparent_entries_only_hides_nothing(self) -> None:
        image = Image.fromarray(quadrants()).quantize(4)
        data = encode(image, "PNG", transparency=bytes(4))
        np.testing.assert_array_equal(decode(data).rgb_HW3, quadrants())

    def test_grey_of_16_bits_with_an_alpha_of_zeros_only(self) -> None:
        shown = decode(png(np.stack([SIXTEEN_BITS, np.zeros_like(SIXTEEN_BITS)], 2))).rgb_HW3
        assert np.abs(shown[..., 0] - SIXTEEN_BITS / 257).max() <= 1

    @pytest.mark.parametrize("alpha", [0, 7, 128, 255])
    @pytest.mark.parametrize("masks", [False, True])
    def test_the_fourth_byte_of_a_bmp_is_no_alpha(self, alpha: int, masks: bool) -> None:
        np.testing.assert_array_equal(decode(bmp32(quadrants(), alpha, masks)).rgb_HW3, quadrants())

    def test_a_bmp_whose_fourth_byte_varies_either(self) -> None:
        alpha_HW = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
        np.testing.assert_array_equal(
            decode(bmp32(quadrants(), alpha_HW, True)).rgb_HW3, quadrants()
        )


def png_text(size: int, *, zipped: bool) -> bytes:
    about = PngImagePlugin.PngInfo()
    about.add_itxt("parameters", "x" * size, zip=zipped)
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = np.ascontiguousarray(quadrants()[::-1, ::-1])
    return encode(turned, "PNG", pnginfo=about, exif=exif.tobytes())


class TestDamageBesideThePixels:
    @pytest.mark.parametrize(("size", "zipped"), [(2_000_000, True), (80_000_000, False)])
    def test_long_texts_of_a_png_cost_nothing(self, size: int, zipped: bool) -> None:
        """As image generators and editors write them; the EXIF beside them still counts."""
        np.testing.assert_array_equal(decode(png_text(size, zipped=zipped)).rgb_HW3, quadrants())

    @pytest.mark.parametrize(
        "kind", [b"tEXt", b"iCCP", b"pHYs", b"eXIf", b"gAMA", b"acTL", b"teSt"]
    )
    def test_a_wrong_checksum_of_what_is_not_pixels_costs_nothing(self, kind: bytes) -> None:
        data = bytearray(png(quadrants(), (kind, b"k\0hello hello")))
        data[data.index(kind) + 6] ^= 1
        np.testing.assert_array_equal(decode(bytes(data)).rgb_HW3, quadrants())

    def test_a_huge_profile_costs_nothing(self) -> None:
        profile = b"icc\0\0" + zlib.compress(bytes(2**23))
        np.testing.assert_array_equal(
            decode(png(quadrants(), (b"iCCP", profile))).rgb_HW3, quadrants()
        )

    @pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
    def test_a_wrong_checksum_of_pixels_is_damage(self, kind: bytes) -> None:
        data = bytearray(png(quadrants(), (b"tEXt", b"k\0hello")))
        data[data.index(kind) + 8] ^= 1
        with pytest.raises(ImageError):
            decode(bytes(data))

    def test_a_bomb_with_a_broken_text_is_still_refused(self) -> None:
        whole = bytearray(png(np.zeros((1, 1), np.uint8), (b"tEXt", b"k\0hello")))
        whole[16:24] = struct.pack(">II", 50_000, 50_000)
        whole[29:33] = struct.pack(">I", zlib.crc32(bytes(whole[12:29])))
        whole[whole.index(b"tEXt") + 5] ^= 1
        with pytest.raises(ImageError):
            decode(bytes(whole))

    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("missing", [1, 2, 3, 20])
    @pytest.mark.parametrize("min_short_side", [None, 100])
    def test_a_few_bytes_missing_at_a_jpegs_end_cost_a_few_pixels(
        self, progressive: bool, missing: int, min_short_side: int | None
    ) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        whole = encode(noise, "JPEG", progressive=progressive)
        expected = decode(whole, min_short_side=min_short_side).rgb_HW3
        found = decode(whole[:-missing], min_short_side=min_short_side).rgb_HW3
        assert (found != expected).any(axis=2).mean() < 0.01

    @pytest.mark.parametrize("missing", [1, 2])
    def test_a_small_jpeg_without_its_end_mark_is_whole(self, missing: int) -> None:
        whole = jpeg(3)
        np.testing.assert_array_equal(decode(whole[:-missing]).rgb_HW3, decode(whole).rgb_HW3)

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_a_jpeg_of_which_more_is_missing_is_truncated(
        self, progressive: bool, share: float
    ) -> None:
        noise = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
        data = encode(noise, "JPEG", progressive=progressive)
        with pytest.raises(ImageError, match="truncated"):
            decode(data[: int(len(data) * share)])

    def test_a_progressive_jpeg_that_lacks_whole_scans_is_truncated(self) -> None:
        """Every pixel can be decoded then, and none as sharp as it was."""
        data = encode(quadrants(640, 480), "JPEG", progressive=True)
        scans = [match.start() for match in re.finditer(rb"\xff\xda", data)]
        assert len(scans) > 5
        for start in scans[1:]:
            with pytest.raises(ImageError, match="truncated"):
                decode(data[:start])
