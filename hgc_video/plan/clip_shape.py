"""The shape of one clip as the models get it: what graphs, dry runs and memory predictions are made for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipShape:
    """Frames, latent height and width (h w), tokens of the prompt (n), and the guidance branches that are
    computed: 2 with classifier-free guidance."""

    num_frames: int
    height: int
    width: int
    num_tokens: int
    branches: int = 2

    @property
    def num_positions(self) -> int:
        """Rows of the outermost motion module's transformer."""
        return self.height * self.width * self.branches
