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
# # Long clips and memory
#
# What AnimateDiff SD1.5 with a ControlNet takes in half precision at 512x512 for clips of 16 to 512 frames inside
# 8 GiB, weights included. Planned from the configuration: the step that would run is done on tensors without numbers.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt

import hgc_video
from hgc_video.forecast import forecast

root = Path.cwd()
while not (root / "configs").is_dir():
    root = root.parent
small = bool(os.environ.get("HGC_SMALL"))
lengths = [16, 64] if small else [16, 32, 64, 128, 256, 512]
plans = {
    n: forecast(model="animatediff-sd15", preset="balanced", num_frames=n, memory="8GiB")
    for n in lengths
}
for count, told in plans.items():
    cut = told.memory_plan
    print(
        f"{count:4d} frames  {cut.peak.nbytes / 2**30:5.2f} GiB  {sum(told.macs_by_part.values()) / 1e12:6.0f} T  {cut}"
    )

# %%
figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
axes.plot(
    lengths,
    [plans[n].memory_plan.peak.nbytes / 2**30 for n in lengths],
    "o-",
    label="on the GPU, predicted",
)
axes.axhline(8, color="0.7", label="budget")
axes.set(xlabel="frames", ylabel="GiB", ylim=(0, 9), title="The peak does not grow with the clip")
axes.legend()
plt.show()

# %% [markdown]
# The same on the embedded model, run for real: a clip longer than the model holds, in overlapping windows.

# %%
clip = hgc_video.generate(
    root / "examples" / "dance_pose.mp4",
    "a dancer in a red shirt and blue trousers on a beach",
    num_frames=18 if small else 24, num_inference_steps=2 if small else 25, progress=False,
)  # fmt: skip
print(clip.report)

# %%
shown = range(0, len(clip.frames), 3)
figure, grid = plt.subplots(1, len(shown), figsize=(12, 2), layout="constrained")
for axes, index in zip(grid, shown, strict=True):
    axes.imshow(clip.frames[index])
    axes.set_axis_off()
    axes.set_title(str(index), fontsize=8)
plt.show()
