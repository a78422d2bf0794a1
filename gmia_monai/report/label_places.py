"""Where the labels of points go, so that none lies on another: boxes in pixels, no drawing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["leader", "overlapping", "place_labels"]

_ANGLES = np.deg2rad(np.arange(0, 360, 15))
_RADII = (4.0, 8.0, 14.0, 22.0, 32.0, 44.0, 58.0, 74.0, 92.0, 112.0, 136.0, 164.0, 200.0, 250.0)
_ON_LABEL, _ON_LEADER, _ON_OBSTACLE = 1000.0, 25.0, 6.0
_SAMPLES = np.linspace(0.08, 1.0, 24)[:, None]


def overlapping(boxes: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Bool[np.ndarray, "n m"]:
    """Which boxes ``left, bottom, right, top`` share area."""
    first, second = boxes[:, None], others[None]
    return np.all((first[..., :2] < second[..., 2:]) & (second[..., :2] < first[..., 2:]), axis=-1)


def place_labels(
    anchors: Float[np.ndarray, "n 2"],
    sizes: Float[np.ndarray, "n 2"],
    bounds: Float[np.ndarray, "4"],
    obstacles: Float[np.ndarray, "m 4"],
    gap: float = 5.0,
) -> Float[np.ndarray, "n 4"]:
    """A box for each label: near its point, inside the bounds, off other labels and, where it can be, off obstacles and
    off the lines that join other labels with their points.

    Points with the most neighbours choose last, since a free place may be far from them; the same points give the same
    places.

    Args:
        anchors: points that labels belong to.
        sizes: width and height of labels.
        bounds: left, bottom, right and top of the picture.
        obstacles: boxes that labels should not hide.
        gap: room between labels.

    Returns:
        Boxes ``left, bottom, right, top`` in the order of the points.
    """
    boxes = np.zeros((len(anchors), 4))
    distance = np.linalg.norm(anchors[:, None] - anchors[None], axis=-1)
    order = np.argsort((distance < 60.0).sum(axis=1), kind="stable")
    placed, lines = np.zeros((0, 4)), np.zeros((0, 2))
    for i in order:
        made = _candidates(anchors[i], sizes[i], bounds)
        own = np.array([leader(anchors[i], box) for box in made])
        cost = np.linalg.norm(own[:, 1] - own[:, 0], axis=1) / 10.0
        cost = cost + _ON_LABEL * overlapping(made + np.array([-gap, -gap, gap, gap]), placed).sum(axis=1)
        cost = cost + _ON_OBSTACLE * overlapping(made, obstacles).sum(axis=1)
        along = own[:, :1] + _SAMPLES * (own[:, 1:] - own[:, :1])
        for box in placed:
            cost = cost + _ON_LEADER * _inside(along, box).any(axis=1)
        others = np.delete(anchors, i, axis=0)
        near = np.linalg.norm(along[:, :, None] - others, axis=-1) < 4.0
        far = np.linalg.norm(others - anchors[i], axis=1) > 8.0
        cost = cost + _ON_LEADER / 5 * (near.any(axis=1) & far).sum(axis=1)
        if len(lines):
            cost = cost + _ON_LEADER * np.array([_inside(lines, box).any() for box in made])
        best = int(np.argmin(cost))
        boxes[i] = made[best]
        placed = np.concatenate([placed, boxes[i : i + 1]])
        lines = np.concatenate([lines, along[best]])
    return boxes


def leader(anchor: Float[np.ndarray, "2"], box: Float[np.ndarray, "4"]) -> Float[np.ndarray, "2 2"]:
    """The line from a point to the nearest place of its label."""
    return np.stack([anchor, np.clip(anchor, box[:2], box[2:])])


def _inside(points: Float[np.ndarray, "*n 2"], box: Float[np.ndarray, "4"]) -> Bool[np.ndarray, "*n"]:
    return np.all((points > box[:2]) & (points < box[2:]), axis=-1)


def _candidates(
    anchor: Float[np.ndarray, "2"], size: Float[np.ndarray, "2"], bounds: Float[np.ndarray, "4"]
) -> Float[np.ndarray, "c 4"]:
    """Boxes around a point, nearest first, moved into the bounds."""
    ways = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    # The side of the box that faces the point is at the radius, whatever the direction.
    centres = anchor + (np.array(_RADII)[:, None, None] * ways + ways * size / 2).reshape(-1, 2)
    centres = np.clip(centres, bounds[:2] + size / 2, np.maximum(bounds[2:] - size / 2, bounds[:2] + size / 2))
    return np.concatenate([centres - size / 2, centres + size / 2], axis=1)
