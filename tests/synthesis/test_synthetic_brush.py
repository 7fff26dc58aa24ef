"""Shapes against the same shapes computed pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from icsr_cli.synthesis.brush import Canvas, bump, polyline, ramp, triangle_wave


def canvas(rows=24, columns=12, batch=3, size=20.0) -> Canvas:
    y = ((np.arange(rows) + 0.5) / size - 0.1)[:, None, None] + np.zeros((1, 1, batch))
    x = ((np.arange(columns) + 0.5 - columns / 2) / size)[None, :, None] + np.zeros((1, 1, batch))
    return Canvas(
        np.full((3, rows, columns, batch), 0.25, np.float32),
        x.astype(np.float32),
        y.astype(np.float32),
        np.full(batch, size, np.float32),
    )


def test_shape_covers_what_a_slow_one_covers():
    sheet = canvas()
    top, bottom = np.float32(0.2), np.array([0.5, 0.7, 0.93], np.float32)
    centre, half = np.array([0.0, 0.03, -0.1], np.float32), np.array([0.1, 0.02, 0.15], np.float32)
    sheet.shape(top, bottom, centre, half, np.ones((3, 3), np.float32))
    for b in range(3):
        for r in range(24):
            for c in range(12):
                y, x = float(sheet.y[r, 0, b]), float(sheet.x[0, c, b])
                down = min(max(min(y - top, bottom[b] - y) * 20 + 0.5, 0), 1)
                area = min(max((half[b] - abs(x - centre[b])) * 20 + 0.5, 0), down)
                assert sheet.pixels[0, r, c, b] == pytest.approx(0.25 + 0.75 * area, abs=1e-4)


def test_nothing_of_no_width_and_outside():
    sheet = canvas()
    zero = np.zeros(3, np.float32)
    sheet.shape(np.float32(0.1), np.float32(0.9), zero, zero, np.ones((3, 3), np.float32))
    sheet.shape(np.float32(5.0), np.float32(6.0), zero, zero + 0.2, np.ones((3, 3), np.float32))
    assert (sheet.pixels == np.float32(0.25)).all()


def test_ellipse_has_its_area():
    sheet = canvas(rows=80, columns=80, batch=1, size=100.0)
    radius = np.full(1, 0.2, np.float32)
    sheet.ellipse(
        np.float32(0.3), np.float32(0.15), np.zeros(1, np.float32), radius, np.ones((3, 1), np.float32)
    )
    covered = float((sheet.pixels[0] - 0.25).sum() / 0.75)
    assert covered == pytest.approx(math.pi * 20 * 15, rel=0.03)


def test_curves():
    value = np.linspace(-1, 3, 81, dtype=np.float32)
    knots = [(0.0, 1.0), (1.0, 3.0), (2.0, 0.0)]
    np.testing.assert_allclose(polyline(value, knots), np.interp(value, [0, 1, 2], [1, 3, 0]), atol=1e-5)
    np.testing.assert_allclose(ramp(value, 0.5, 1.5), np.clip(value - 0.5, 0, 1), atol=1e-6)
    np.testing.assert_allclose(bump(value, 1.0, 2.0) ** 2, 1 - ((value - 1) / 2) ** 2, atol=1e-5)
    wave = triangle_wave(value)
    np.testing.assert_allclose(wave, [4 * abs(v - math.floor(v) - 0.5) - 1 for v in value], atol=1e-5)
    np.testing.assert_allclose(triangle_wave(value + 1), wave, atol=1e-5)


def test_everything_stays_float32():
    sheet = canvas()
    mask = sheet.mask(slice(0, 24), np.float32(0), np.float32(0.1), 0.1, 0.9, 0.5)
    assert mask.dtype == np.float32
    assert mask.max() == np.float32(0.5)
