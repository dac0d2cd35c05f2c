"""The shape of the embedded model's latents, as its configuration has it."""

import json

from hgc_video.models.load import model_folder

CHANNELS = json.loads((model_folder("puppet") / "unet" / "config.json").read_text())["in_channels"]
