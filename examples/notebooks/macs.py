# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What caching saves, before anything runs
#
# MACs of UNet and ControlNet for AnimateDiff on Stable Diffusion 1.5 (16 frames of 512x512, 25 steps, guidance),
# and for the image task of the HGC paper (SD1.5 with a ControlNet, 20 steps). Counted from the configurations
# alone: no weights, no GPU. Every product counts, attention's included.

# %%
import os

import matplotlib.pyplot as plt

from hgc_video.forecast import forecast

METHODS = [
    "off", "lossless", "quality", "balanced", "fast", "turbo",
    "hgc:dense=0.1,interval=3,cut=2,gate=0.3", "deepcache:interval=3",
    "deepcache:interval=3,controlnet_interval=3", "tgate:gate=10", "faster-diffusion", "clockwork:clock=4",
    "pab", "fastercache",
]  # fmt: skip
shown = METHODS[:4] if os.environ.get("HGC_SMALL") else METHODS
video = {m: forecast(model="animatediff-sd15", preset=m) for m in shown}
for method, told in video.items():
    spent = sum(told.macs_by_part.values()) / 1e12
    print(f"{method:45} {spent:6.0f} T   {100 * told.macs_saved:5.1f} % saved")

# %% [markdown]
# The presets are schedules searched on the embedded model and carried over by rule. What they save here is
# exact; what they lose here has not been measured, for no pretrained weights were to be had.

# %%
figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
names = list(video)
unet = [video[m].macs_by_part["unet"] / 1e12 for m in names]
net = [video[m].macs_by_part["controlnet"] / 1e12 for m in names]
axes.barh(names, unet, label="UNet")
axes.barh(names, net, left=unet, label="ControlNet")
axes.invert_yaxis()
axes.set(
    xlabel="MACs of the denoising loop, T",
    title="AnimateDiff SD1.5 + ControlNet, 16 frames, 25 steps",
)
axes.legend()
plt.show()

# %% [markdown]
# The image task, as older tables count it (attention's products left out): 18.2 T without a cache, which is the
# baseline that the HGC paper gives; its 6.7 T is met by the reconstruction in the last row.

# %%
for method in (
    "off",
    "deepcache:interval=3",
    "balanced",
    "hgc:dense=0.1,interval=3,cut=2,gate=0.3",
):
    told = forecast(
        model="sd15", preset=method, num_inference_steps=20, num_controlnets=1,
        convention="no-attention-products",
    )  # fmt: skip
    spent = sum(told.macs_by_part.values()) / 1e12
    print(f"{method:45} {spent:6.2f} T   {100 * told.macs_saved:5.1f} % saved")
