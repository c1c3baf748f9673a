"""Drawn faces in CelebA's layout, with exact landmarks and label maps, for where no real data set can be shipped."""

from collagan_dist.faces.layout import draw_faces
from collagan_dist.faces.render import draw_face

__all__ = ["draw_face", "draw_faces"]
