"""The four imaging domains of the embedded data set: each renders the geometry of a scene as an image."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

SIZE = 96  # height and width of an image, pixels


class Scene(NamedTuple):
    """The geometry of a scene, which the four domains share.

    Attributes:
      background: (SIZE, SIZE, 3) float32 in [0, 1], RGB.
      alphas: (digit, SIZE, SIZE) float32 in [0, 1], the fraction of each pixel covered by that digit; the sum is at
        most 1.
      labels: (digit,) rows of `scenes.CLASSES`.
    """

    background: np.ndarray
    alphas: np.ndarray
    labels: np.ndarray

    @property
    def cover(self) -> np.ndarray:
        """(SIZE, SIZE) float32 in [0, 1]: the fraction of each pixel covered by any digit."""
        return self.alphas.sum(axis=0)


_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _grey(background: np.ndarray, sigma: float) -> np.ndarray:
    """Luminance (SIZE, SIZE) blurred by sigma pixels."""
    return cv2.GaussianBlur(cv2.cvtColor(background, cv2.COLOR_RGB2GRAY), (0, 0), sigma)


PHOTO_DIMMING = (0.45, 0.7)  # range of the background's gain: leaves room for digits that are brighter
PHOTO_CONTRAST = (0.35, 0.55)  # range of a digit's luminance above its surroundings'
PHOTO_COLOUR = 0.6  # how colourful digits are
PHOTO_NOISE = 0.015


def _photo(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Bright digits in any colour on a dimmed photograph."""
    backdrop = scene.background * np.float32(rng.uniform(*PHOTO_DIMMING))
    luminance = cv2.cvtColor(backdrop, cv2.COLOR_RGB2GRAY)
    image = backdrop * (1.0 - scene.cover)[..., None]
    for alpha in scene.alphas:
        local = float(np.vdot(alpha, luminance) / alpha.sum())
        hue = rng.random(3, dtype=np.float32) - 0.5
        tint = local + rng.uniform(*PHOTO_CONTRAST) + PHOTO_COLOUR * (hue - _LUMA @ hue)
        image += alpha[..., None] * np.clip(tint, 0.0, 1.0).astype(np.float32)
    return image + PHOTO_NOISE * _noise(rng, (SIZE, SIZE, 3))


ULTRASOUND_TISSUE = 0.5  # mean echo
ULTRASOUND_TEXTURE = 0.7  # how much of the photograph's luminance shows in the tissue
ULTRASOUND_DARKNESS = 0.75  # share of the echo that a digit swallows
ULTRASOUND_BLUR = 1.2  # sigma in pixels, of a digit's border
ULTRASOUND_SPECKLE = 0.6  # exponent of the speckle's amplitude: 0 is none, 1 a raw Rayleigh amplitude
ULTRASOUND_SMOOTHING = 0.6  # sigma in pixels, of the finished image

_APEX = 40.0  # pixels above the image at which the fan's sides meet
_HALF_ANGLE = np.deg2rad(40.0)
_RADIUS = np.hypot(_X - SIZE / 2, _Y + _APEX)
_ANGLE = np.arctan2(_X - SIZE / 2, _Y + _APEX)
_DEPTH = (_RADIUS - _APEX) / SIZE  # 0 at the probe, 1 at the fan's far end
_TO_SIDE, _TO_END = (_HALF_ANGLE - np.abs(_ANGLE)) * _RADIUS, (1 - _DEPTH) * SIZE  # pixels, negative outside the fan
_FAN = (np.clip(_TO_SIDE, 0, 1) * np.clip(_TO_END, 0, 1) * (_DEPTH > 0)).astype(np.float32)
_BEAMS = (72, 48)  # speckle cells in depth and across the fan: they widen with depth, as a beam does
_BEAM_Y = (_DEPTH * (_BEAMS[0] - 1)).astype(np.float32)
_BEAM_X = ((_ANGLE / _HALF_ANGLE + 1) / 2 * (_BEAMS[1] - 1)).astype(np.float32)
_ATTENUATION = (1.0 - 0.35 * _DEPTH + 0.5 * np.exp(-_DEPTH / 0.03)).astype(np.float32)  # and a bright skin line


def _ultrasound(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Dark digits in grey tissue, multiplied by speckle whose grain follows the beams, inside a fan."""
    tissue = _grey(scene.background, 3.0)
    tissue = ULTRASOUND_TISSUE + ULTRASOUND_TEXTURE * (tissue - tissue.mean()) * 0.5
    echo = tissue * (1.0 - ULTRASOUND_DARKNESS * cv2.GaussianBlur(scene.cover, (0, 0), ULTRASOUND_BLUR))
    waves = cv2.remap(_noise(rng, (*_BEAMS, 2)), _BEAM_X, _BEAM_Y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    speckle = cv2.pow(cv2.magnitude(waves[..., 0], waves[..., 1]), ULTRASOUND_SPECKLE)
    image = cv2.GaussianBlur(echo * speckle * _ATTENUATION, (0, 0), ULTRASOUND_SMOOTHING) * _FAN
    return cv2.merge([image, image, image])


ENDOSCOPY_CONTRAST = 0.22  # how much paler than the mucosa a digit is
ENDOSCOPY_TEXTURE = 0.45  # how much of the photograph's luminance shows in the mucosa
ENDOSCOPY_FOLDS = 0.08  # standard deviation of the light and dark of the mucosa's folds
ENDOSCOPY_BLUR = 1.2  # sigma in pixels, of a digit's border
ENDOSCOPY_RELIEF = 0.2  # how strongly light from the upper left models a digit
ENDOSCOPY_SPOTS = 4  # mean number of specular spots
ENDOSCOPY_NOISE = 0.015

_DARK_MUCOSA = np.array([0.36, 0.07, 0.06], np.float32)
_PALE_MUCOSA = np.array([1.0, 0.66, 0.56], np.float32)
_VIGNETTE = np.clip(1.15 - 0.75 * (np.hypot(_X - 47.5, _Y - 47.5) / 62.0) ** 3, 0.0, 1.0).astype(np.float32)


def _endoscopy(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Digits as slightly paler swellings of a red, wet wall, lit from the middle."""
    wall = _grey(scene.background, 2.5)
    folds = cv2.resize(_noise(rng, (4, 4)), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    bump = cv2.GaussianBlur(scene.cover, (0, 0), ENDOSCOPY_BLUR)
    relief = np.zeros_like(bump)
    relief[:-2, :-2] = bump[2:, 2:] - bump[:-2, :-2]
    tone = 0.42 + ENDOSCOPY_TEXTURE * (wall - wall.mean()) + ENDOSCOPY_FOLDS * folds
    tone += ENDOSCOPY_CONTRAST * bump + ENDOSCOPY_RELIEF * relief
    tone = (tone * _VIGNETTE)[..., None]
    image = _DARK_MUCOSA + tone * (_PALE_MUCOSA - _DARK_MUCOSA)
    image = image * _VIGNETTE[..., None] + _glints(rng)[..., None]
    return image + ENDOSCOPY_NOISE * _noise(rng, (SIZE, SIZE, 3))


def _glints(rng: np.random.Generator) -> np.ndarray:
    """White reflections of the lamp, (SIZE, SIZE) float32: small ellipses with a soft halo."""
    glints = np.zeros((SIZE, SIZE), np.float32)
    for x, y, width, height, angle in rng.random((rng.poisson(ENDOSCOPY_SPOTS), 5)).tolist():
        centre = (int(8 + 80 * x), int(8 + 80 * y))
        cv2.ellipse(glints, centre, (1 + int(3 * width), 1 + int(2 * height)), 180 * angle, 0, 360, 1.0, -1)
    return cv2.GaussianBlur(glints, (0, 0), 0.9)


XRAY_DENSITY = 0.5  # what a digit adds to the density, of which the film shows 1 - exp(-density)
XRAY_TISSUE = 0.7  # density of the soft tissue
XRAY_TEXTURE = 0.5  # how much of the photograph's luminance shows in the soft tissue
XRAY_BONE = 0.3  # density that a rib adds; the spine adds more
XRAY_BLUR = 0.9  # sigma in pixels, of a digit's border
XRAY_NOISE = 0.03


def _xray(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Digits as a little more density under ribs and beside a spine."""
    tissue = _grey(scene.background, 4.0)
    density = XRAY_TISSUE + XRAY_TEXTURE * (tissue - tissue.mean()) + XRAY_BONE * _bones(rng)
    density += XRAY_DENSITY * cv2.GaussianBlur(scene.cover, (0, 0), XRAY_BLUR)
    image = 1.0 - np.exp(-np.maximum(density, 0.0)) + XRAY_NOISE * _noise(rng, (SIZE, SIZE))
    return cv2.merge([image, image, image])


def _bones(rng: np.random.Generator) -> np.ndarray:
    """Density (SIZE, SIZE) float32 of a spine and curved ribs that fall away from it; denser at their borders."""
    spine, period, phase, slope = rng.uniform((30.0, 17.0, 0.0, 0.004), (66.0, 23.0, 1.0, 0.008)).tolist()
    across = np.abs(_X - np.float32(spine))
    position = (_Y - np.float32(slope) * across * across) / np.float32(period) + np.float32(phase)
    offset = np.abs(position - np.rint(position))  # 0 in the middle of a rib, 0.5 between two
    ribs = np.clip((0.24 - offset) * 12.0, 0.0, 1.0) * (0.6 + 2.0 * offset)
    return ribs + 0.9 * np.exp(-np.square(across / 9.0))


RENDERERS: dict[str, Callable[[Scene, np.random.Generator], np.ndarray]] = {
    "photo": _photo,
    "ultrasound": _ultrasound,
    "endoscopy": _endoscopy,
    "xray": _xray,
}
"""Each maps a scene to (SIZE, SIZE, 3) float32, RGB, where [0, 1] is what a screen can show."""
