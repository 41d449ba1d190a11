"""Small scenes drawn with Pillow: the pictures of the sample person, and of anybody who posts on the mock network.

Rule: the same scene, seed and size give the same picture, drawn from nothing; no file is read.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

from PIL import ExifTags, Image, ImageDraw, ImageOps

from threadbridge.errors import Invalid

Colour = tuple[int, int, int]
_OVER = 2  # drawn at twice the size and scaled down: Pillow does not smooth edges by itself
_WIDTH, _HEIGHT = 1000, 1000  # the scenes' own units, whatever the size of the picture


class _Sheet:
    """A picture in scene units: 1000 × 1000, origin top left."""

    def __init__(self, size: tuple[int, int], top: Colour, bottom: Colour, random: Random) -> None:
        self.size = (size[0] * _OVER, size[1] * _OVER)
        ramp = Image.linear_gradient("L").resize(self.size)
        self.image = ImageOps.colorize(ramp, top, bottom)
        self.draw = ImageDraw.Draw(self.image, "RGBA")
        self.random = random

    def at(self, x: float, y: float) -> tuple[float, float]:
        return x * self.size[0] / _WIDTH, y * self.size[1] / _HEIGHT

    def disc(self, x: float, y: float, radius: float, colour: Colour, alpha: int = 255) -> None:
        cx, cy = self.at(x, y)
        r = radius * min(self.size) / _WIDTH
        self.draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=(*colour, alpha))

    def ring(self, x: float, y: float, radius: float, colour: Colour, width: float) -> None:
        cx, cy = self.at(x, y)
        scale = min(self.size) / _WIDTH
        r = radius * scale
        self.draw.ellipse((cx - r, cy - r, cx + r, cy + r), outline=colour, width=max(1, int(width * scale)))

    def box(self, x: float, y: float, right: float, bottom: float, colour: Colour, alpha: int = 255) -> None:
        self.draw.rectangle((*self.at(x, y), *self.at(right, bottom)), fill=(*colour, alpha))

    def shape(self, points: Sequence[tuple[float, float]], colour: Colour, alpha: int = 255) -> None:
        self.draw.polygon([self.at(x, y) for x, y in points], fill=(*colour, alpha))

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float) -> None:
        thick = max(1, int(width * min(self.size) / _WIDTH))
        self.draw.line([self.at(x, y) for x, y in points], fill=colour, width=thick, joint="curve")

    def ridge(self, height: float, swing: float, colour: Colour) -> None:
        """Hills from edge to edge, down to the bottom."""
        waves = [(self.random.uniform(1, 6), self.random.uniform(0, 6.3), self.random.random()) for _ in range(4)]
        points = [
            (x, height + swing * sum(a * math.sin(f * x / 1000 * 3 + p) for f, p, a in waves) / 2)
            for x in range(0, 1001, 10)
        ]
        self.shape([(0.0, 1000.0), *points, (1000.0, 1000.0)], colour)

    def stars(self, count: int, below: float, colour: Colour) -> None:
        for _ in range(count):
            self.disc(
                self.random.uniform(0, 1000), self.random.uniform(0, below), self.random.uniform(0.8, 3), colour, 220
            )

    def finished(self) -> Image.Image:
        return self.image.resize((self.size[0] // _OVER, self.size[1] // _OVER), Image.Resampling.LANCZOS)


def _harbour(sheet: _Sheet) -> None:
    sheet.disc(690, 430, 95, (255, 226, 160))
    sheet.box(0, 520, 1000, 1000, (46, 92, 128))
    for n in range(26):
        y = 530 + n * 18
        x = 690 + sheet.random.uniform(-60 - n * 4, 60 + n * 4)
        sheet.line([(x - 50, y), (x + 50, y)], (255, 214, 150), 4)
    for x, y, size in ((240, 640, 1.0), (520, 760, 1.5)):
        hull = [
            (x - 90 * size, y),
            (x + 90 * size, y),
            (x + 60 * size, y + 45 * size),
            (x - 65 * size, y + 45 * size),
        ]
        sheet.shape(hull, (120, 40, 44))
        sheet.shape([(x, y - 10), (x, y - 200 * size), (x + 80 * size, y - 10)], (250, 244, 230))
        sheet.shape([(x - 8, y - 10), (x - 8, y - 150 * size), (x - 60 * size, y - 10)], (236, 224, 200))


def _mountains(sheet: _Sheet) -> None:
    sheet.disc(250, 240, 70, (255, 244, 214))
    for left, peak, right, colour in (
        (-150, (220, 330), 560, (112, 126, 160)),
        (300, (640, 240), 1150, (86, 100, 140)),
        (60, (420, 420), 820, (62, 78, 116)),
    ):
        x, y = peak
        sheet.shape([(left, 860), peak, (right, 860)], colour)
        sheet.shape([(x - 62, y + 96), peak, (x + 70, y + 96), (x + 24, y + 70), (x - 16, y + 110)], (244, 246, 250))
    sheet.ridge(780, 40, (58, 104, 84))
    sheet.ridge(870, 30, (40, 78, 62))


def _city(sheet: _Sheet) -> None:
    sheet.stars(120, 480, (255, 255, 255))
    sheet.disc(800, 170, 60, (250, 240, 205))
    for row, shade in ((0, 46), (1, 28)):
        x = -20.0
        while x < 1000:
            width, top = sheet.random.uniform(60, 130), sheet.random.uniform(330, 620) + row * 120
            sheet.box(x, top, x + width, 1000, (shade, shade + 6, shade + 30))
            for wx in range(int(x) + 14, int(x + width) - 14, 24):
                for wy in range(int(top) + 22, 980, 34):
                    if sheet.random.random() < 0.45:
                        sheet.box(wx, wy, wx + 10, wy + 16, (255, 214, 120))
            x += width + 6


def _forest(sheet: _Sheet) -> None:
    for row in range(4):
        shade = 120 - row * 26
        for n in range(12):
            x, base = n * 92 + sheet.random.uniform(-30, 30), 620 + row * 120
            height = sheet.random.uniform(260, 400)
            sheet.box(x - 7, base - 40, x + 7, base + 60, (78, 56, 42))
            for layer in range(3):
                half, top = 86 - layer * 22, base - height * (0.25 + layer * 0.25)
                sheet.shape([(x - half, top + 110), (x, top), (x + half, top + 110)], (shade // 2, shade, shade - 28))
    sheet.ridge(985, 10, (30, 52, 36))


def _coffee(sheet: _Sheet) -> None:
    for n in range(0, 1000, 50):
        sheet.line([(0, n + 20), (1000, n + sheet.random.uniform(0, 40))], (150, 104, 70), 2)
    sheet.disc(500, 540, 330, (238, 232, 224))
    sheet.disc(500, 540, 290, (250, 248, 244))
    sheet.ring(745, 540, 78, (250, 248, 244), 34)
    sheet.disc(500, 540, 220, (255, 255, 255))
    sheet.disc(500, 540, 196, (112, 68, 40))
    for n in range(5):
        sheet.disc(500, 440 + n * 44, 92 - n * 15, (232, 204, 168))
        sheet.disc(500, 424 + n * 44, 92 - n * 15, (112, 68, 40))
    sheet.shape([(488, 424), (512, 424), (504, 700), (496, 700)], (232, 204, 168))


def _balloons(sheet: _Sheet) -> None:
    for _ in range(7):
        x, y = sheet.random.uniform(0, 1000), sheet.random.uniform(80, 620)
        for step in range(4):
            sheet.disc(x + step * 42, y + abs(step - 1.5) * 12, 40, (255, 255, 255), 150)
    palette: list[Colour] = [(214, 72, 62), (244, 180, 60), (64, 132, 176), (108, 156, 88), (150, 88, 150)]
    for n, (x, y, size) in enumerate(((250, 330, 110), (620, 240, 150), (820, 520, 80), (430, 600, 70))):
        sheet.disc(x, y, size, palette[n])
        for stripe in (-0.5, 0.5):
            cx, cy = x + stripe * size, y
            edge = [(cx + 0.17 * size * math.sin(a), cy - 0.84 * size * math.cos(a)) for a in (0, 1, 2, 3, 4, 5, 6)]
            sheet.shape(edge, palette[n + 1])
        for side in (-1, 1):
            sheet.line([(x + side * size * 0.6, y + size * 0.78), (x + side * 16, y + size * 1.5)], (80, 60, 50), 3)
        sheet.box(x - 20, y + size * 1.5, x + 20, y + size * 1.5 + 30, (126, 84, 50))
    sheet.ridge(900, 40, (136, 158, 84))


def _lighthouse(sheet: _Sheet) -> None:
    sheet.shape([(505, 250), (1000, 120), (1000, 380)], (255, 240, 170), 120)
    sheet.box(0, 700, 1000, 1000, (34, 74, 110))
    for _ in range(60):
        x, y = sheet.random.uniform(0, 1000), sheet.random.uniform(710, 990)
        sheet.line([(x, y), (x + 40, y)], (90, 136, 168), 3)
    sheet.shape([(260, 820), (400, 690), (600, 680), (760, 830)], (70, 66, 70))
    bands: list[Colour] = [(246, 242, 236), (196, 54, 50)]
    for n in range(6):
        top, low = 300 + n * 66, 300 + (n + 1) * 66
        wide, wider = 44 + n * 6, 44 + (n + 1) * 6
        edge = [(500.0 - wide, top), (500.0 + wide, top), (500.0 + wider, low), (500.0 - wider, low)]
        sheet.shape(edge, bands[n % 2])
    sheet.box(448, 222, 552, 300, (52, 54, 60))
    sheet.box(466, 232, 534, 290, (255, 236, 150))
    sheet.shape([(440, 222), (500, 160), (560, 222)], (150, 40, 40))


def _tram(sheet: _Sheet) -> None:
    for n, colour in enumerate(((232, 196, 150), (206, 150, 120), (176, 190, 186), (222, 176, 96))):
        left = n * 250
        sheet.box(left, 170 + (n % 2) * 60, left + 250, 800, colour)
        for wx in (left + 40, left + 150):
            for wy in range(260, 620, 120):
                sheet.box(wx, wy, wx + 60, wy + 80, (84, 104, 122))
    sheet.box(0, 800, 1000, 1000, (110, 108, 112))
    sheet.line([(0, 150), (1000, 190)], (40, 40, 44), 4)
    sheet.box(180, 480, 820, 830, (240, 196, 40))
    sheet.box(180, 660, 820, 700, (250, 246, 236))
    for n in range(5):
        sheet.box(212 + n * 120, 520, 300 + n * 120, 640, (150, 196, 214))
    sheet.line([(500, 480), (440, 300), (520, 172)], (60, 60, 64), 8)
    for x in (300, 700):
        sheet.disc(x, 838, 44, (46, 46, 50))
    sheet.line([(0, 884), (1000, 884)], (190, 190, 196), 8)


def _stars(sheet: _Sheet) -> None:
    for n in range(220):
        angle = n / 220 * 6.283 + sheet.random.uniform(-0.02, 0.02)
        radius = sheet.random.uniform(60, 620)
        arc = [
            (520 + radius * math.cos(angle + step * 0.02), 380 + radius * math.sin(angle + step * 0.02))
            for step in range(10)
        ]
        glow = sheet.random.randint(150, 255)
        sheet.line(arc, (glow, glow, 255), 2.4)
    sheet.disc(520, 380, 6, (255, 255, 255))
    sheet.ridge(860, 50, (12, 20, 34))
    sheet.shape([(240, 900), (320, 800), (400, 900)], (222, 120, 50))
    sheet.shape([(300, 900), (320, 840), (340, 900)], (255, 220, 140))


def _market(sheet: _Sheet) -> None:
    stripes: list[Colour] = [(206, 60, 56), (250, 246, 238)]
    for n in range(10):
        sheet.shape([(n * 100, 60), (n * 100 + 100, 60), (n * 100 + 110, 250), (n * 100 - 10, 250)], stripes[n % 2])
        sheet.disc(n * 100 + 50, 250, 52, stripes[n % 2])
    fruit: list[Colour] = [(226, 60, 52), (246, 164, 44), (128, 178, 60), (248, 214, 70), (120, 60, 120)]
    for crate in range(5):
        left = crate * 200
        for row in range(7):
            for n in range(4):
                x, y = left + 34 + n * 44 + (row % 2) * 14, 480 + row * 52
                red, green, blue = fruit[crate]
                sheet.disc(x, y, 30, (red - 30, green - 30, max(0, blue - 30)))
                sheet.disc(x - 4, y - 4, 25, fruit[crate])
        sheet.box(left + 4, 850, left + 196, 990, (150, 108, 66))
        sheet.line([(left + 4, 900), (left + 196, 900)], (112, 78, 46), 5)


def _tiles(sheet: _Sheet) -> None:
    blue, pale, ochre = (36, 84, 150), (240, 242, 238), (226, 168, 60)
    for row in range(5):
        for column in range(5):
            x, y = column * 200 + 100, row * 200 + 100
            sheet.box(x - 98, y - 98, x + 98, y + 98, pale)
            for corner in ((-98, -98), (98, -98), (98, 98), (-98, 98)):
                sheet.shape([(x, y), (x + corner[0], y), (x + corner[0], y + corner[1])], blue)
            sheet.disc(x, y, 62, pale)
            sheet.disc(x, y, 46, ochre)
            sheet.shape([(x, y - 40), (x + 14, y), (x, y + 40), (x - 14, y)], blue)
            sheet.shape([(x - 40, y), (x, y + 14), (x + 40, y), (x, y - 14)], blue)


def _cat(sheet: _Sheet) -> None:
    sheet.box(160, 80, 840, 740, (250, 244, 228))
    sheet.box(190, 110, 810, 720, (142, 190, 214))
    sheet.disc(690, 220, 56, (255, 232, 150))
    sheet.box(490, 110, 510, 720, (250, 244, 228))
    sheet.box(100, 720, 900, 780, (214, 190, 150))
    coat, dark = (62, 58, 62), (40, 36, 40)
    sheet.disc(420, 610, 130, coat)
    sheet.box(300, 610, 540, 724, coat)
    sheet.disc(420, 430, 92, coat)
    for side in (-1, 1):
        sheet.shape([(420 + side * 84, 400), (420 + side * 76, 292), (420 + side * 18, 352)], coat)
        sheet.disc(420 + side * 36, 424, 17, (196, 216, 92))
        sheet.disc(420 + side * 36, 424, 7, dark)
        sheet.line([(420 + side * 30, 462), (420 + side * 130, 452)], (220, 216, 210), 2)
    sheet.line([(540, 690), (640, 700), (690, 640), (664, 580)], coat, 34)
    sheet.shape([(408, 448), (432, 448), (420, 462)], (222, 140, 140))


def _snow(sheet: _Sheet) -> None:
    sheet.ridge(640, 50, (214, 224, 236))
    for x, y, size in ((200, 640, 1.0), (520, 600, 0.8), (770, 670, 1.2)):
        sheet.box(x - 80 * size, y, x + 80 * size, y + 120 * size, (150, 84, 60))
        sheet.shape([(x - 110 * size, y + 6), (x, y - 100 * size), (x + 110 * size, y + 6)], (248, 250, 252))
        sheet.box(x - 22 * size, y + 50 * size, x + 22 * size, y + 120 * size, (90, 54, 40))
        sheet.box(x + 34 * size, y + 34 * size, x + 64 * size, y + 66 * size, (255, 216, 120))
    sheet.ridge(810, 26, (240, 244, 250))
    for _ in range(260):
        flake = sheet.random.uniform(0, 1000), sheet.random.uniform(0, 1000)
        sheet.disc(*flake, sheet.random.uniform(2, 6), (255, 255, 255), 230)


def _bicycle(sheet: _Sheet) -> None:
    sheet.box(0, 760, 1000, 1000, (176, 164, 150))
    for n in range(8):
        sheet.line([(n * 140 - 40, 1000), (n * 120 + 60, 760)], (156, 144, 130), 4)
    frame = (200, 70, 50)
    for x in (280, 720):
        sheet.ring(x, 660, 150, (44, 44, 48), 16)
        for n in range(12):
            angle = n * math.pi / 6
            sheet.line([(x, 660), (x + 142 * math.cos(angle), 660 + 142 * math.sin(angle))], (140, 140, 146), 2)
    sheet.line([(280, 660), (420, 430), (660, 430), (480, 660), (280, 660)], frame, 16)
    sheet.line([(480, 660), (400, 380)], frame, 16)
    sheet.line([(720, 660), (650, 370), (720, 340)], frame, 16)
    sheet.line([(350, 376), (450, 376)], (52, 40, 34), 26)
    sheet.disc(480, 660, 36, (60, 60, 64))
    sheet.box(650, 260, 800, 350, (190, 146, 92))
    for x in (670, 712, 752, 790):
        sheet.disc(x, 240, 32, (236, 190 - x % 90, 110))


def _field(sheet: _Sheet) -> None:
    sheet.disc(500, 360, 120, (255, 238, 170))
    sheet.ridge(520, 20, (120, 150, 90))
    rows: list[Colour] = [(128, 84, 150), (158, 112, 178)]
    for n in range(-14, 15):
        sheet.shape(
            [(500 + n * 12, 540), (500 + (n + 1) * 12, 540), (500 + (n + 1) * 96, 1000), (500 + n * 96, 1000)],
            rows[n % 2],
        )
    for _ in range(500):
        y = sheet.random.uniform(560, 1000)
        sheet.disc(sheet.random.uniform(0, 1000), y, (y - 500) / 90, (206, 168, 224), 200)


def _portrait(sheet: _Sheet) -> None:
    sheet.disc(500, 1010, 380, (50, 96, 108))
    sheet.box(430, 600, 570, 760, (196, 140, 110))
    sheet.disc(500, 430, 250, (52, 36, 34))
    sheet.disc(500, 470, 196, (212, 156, 124))
    sheet.shape([(300, 430), (360, 250), (640, 250), (700, 430), (560, 340), (400, 350)], (52, 36, 34))
    for side in (-1, 1):
        sheet.disc(500 + side * 78, 470, 20, (40, 30, 30))
        sheet.ring(500 + side * 78, 470, 58, (222, 178, 70), 9)
    sheet.line([(478, 466), (522, 466)], (222, 178, 70), 9)
    sheet.line([(440, 572), (500, 600), (560, 572)], (150, 70, 66), 12)


@dataclass(frozen=True, slots=True)
class _Scene:
    top: Colour
    bottom: Colour
    paint: Callable[[_Sheet], None]


_SCENES: dict[str, _Scene] = {
    "harbour": _Scene((84, 96, 156), (252, 176, 120), _harbour),
    "mountains": _Scene((150, 188, 224), (250, 226, 206), _mountains),
    "city": _Scene((16, 18, 48), (92, 60, 110), _city),
    "forest": _Scene((196, 220, 214), (122, 168, 140), _forest),
    "coffee": _Scene((176, 128, 90), (140, 96, 64), _coffee),
    "balloons": _Scene((112, 178, 224), (246, 226, 190), _balloons),
    "lighthouse": _Scene((30, 34, 76), (232, 142, 110), _lighthouse),
    "tram": _Scene((150, 200, 230), (236, 236, 226), _tram),
    "stars": _Scene((8, 10, 34), (40, 50, 96), _stars),
    "market": _Scene((244, 236, 220), (214, 196, 166), _market),
    "tiles": _Scene((200, 206, 208), (180, 186, 190), _tiles),
    "cat": _Scene((226, 186, 150), (196, 140, 110), _cat),
    "snow": _Scene((110, 128, 170), (214, 206, 220), _snow),
    "bicycle": _Scene((206, 228, 226), (246, 234, 210), _bicycle),
    "field": _Scene((126, 140, 200), (255, 206, 160), _field),
    "portrait": _Scene((246, 204, 150), (232, 150, 120), _portrait),
}

SCENES: tuple[str, ...] = tuple(_SCENES)


@dataclass(frozen=True, slots=True)
class Camera:
    """What a telephone writes into a picture: model, time, and the place as (latitude, longitude) in degrees."""

    taken: datetime
    model: str = "Fairphone 5"
    place: tuple[float, float] | None = None


def draw(scene: str, *, size: tuple[int, int] = (1080, 1080), seed: int = 1) -> Image.Image:
    """One of SCENES. Raises Invalid for another name."""
    chosen = _SCENES.get(scene)
    if chosen is None:
        raise Invalid(f"There is no scene {scene!r}", hint=f"Scenes: {', '.join(SCENES)}.")
    random = Random(f"{scene}/{seed}")  # noqa: S311 - a picture, not a secret
    sheet = _Sheet(size, chosen.top, chosen.bottom, random)
    chosen.paint(sheet)
    return sheet.finished()


def encode(image: Image.Image, form: str = "JPEG", camera: Camera | None = None) -> bytes:
    """The picture as JPEG, PNG or WEBP bytes, with the camera's EXIF if there is one."""
    target = io.BytesIO()
    extra = {"exif": _exif(camera)} if camera else {}
    image.save(target, form, quality=86, **extra)
    return target.getvalue()


def _exif(camera: Camera) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = camera.model.partition(" ")[0]
    exif[ExifTags.Base.Model] = camera.model
    exif[ExifTags.Base.DateTime] = camera.taken.strftime("%Y:%m:%d %H:%M:%S")
    exif[ExifTags.Base.ImageDescription] = "Drawn for the threadbridge sample"
    if camera.place:
        latitude, longitude = camera.place
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        gps[ExifTags.GPS.GPSLatitudeRef] = "N" if latitude >= 0 else "S"
        gps[ExifTags.GPS.GPSLatitude] = _degrees(latitude)
        gps[ExifTags.GPS.GPSLongitudeRef] = "E" if longitude >= 0 else "W"
        gps[ExifTags.GPS.GPSLongitude] = _degrees(longitude)
    return exif


def _degrees(value: float) -> tuple[float, float, float]:
    """Degrees, minutes, seconds, as EXIF wants them."""
    value = abs(value)
    minutes = (value % 1) * 60
    return float(int(value)), float(int(minutes)), round((minutes % 1) * 60, 2)
