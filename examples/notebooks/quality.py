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
# # Quality against MACs, with clips to look at
#
# The embedded model, held-out clips, the same noise for every method. Beside every method stand as many plain
# steps as cost no less, of DDIM and of DPM++ 2M. `HGC_SMALL=1` makes it quick; the README's table is the same with
# 16 clips and two noises.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt

from hgc_video.evaluate.measure import CompareConfig, frames_of
from hgc_video.evaluate.run import compare
from hgc_video.evaluate.samples import SampleSet
from hgc_video.evaluate.table import markdown, rows

small = bool(os.environ.get("HGC_SMALL"))
steps, converged = (4, 6) if small else (25, 100)
task = CompareConfig(SampleSet("puppet", None, 3100, 1, 2 if small else 8), steps, converged)
methods = (
    ["balanced"]
    if small
    else ["balanced", "fast", "turbo", "deepcache:interval=3,controlnet_interval=3"]
)
figures = compare(task, methods, memory=Path("runs/notebook-quality.jsonl"))
found = rows(figures)
print(markdown(found))

# %%
figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
for row in found:
    if row.psnr_db < 99:
        axes.plot(100 * row.saved, row.psnr_db, "o", label=row.method)
axes.set(
    xlabel="MACs saved, %",
    ylabel="PSNR to the uncached clip, dB",
    title="One clip, 8 frames, 25 steps",
)
axes.grid(alpha=0.3)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# Frames of the same clip: without a cache, with ours, with DeepCache, and with fewer steps at the cost of `fast`.

# %%
shown = ["off", *methods, *([] if small else ["fewer-steps:steps=6"])]
clips = {name: frames_of(task, name, 0, 0) for name in shown}
figure, grid = plt.subplots(
    len(shown), 4, figsize=(8, 2 * len(shown)), layout="constrained", squeeze=False
)
for line, (name, frames) in zip(grid, clips.items(), strict=True):
    for axes, index in zip(line, range(4), strict=True):
        axes.imshow(frames[index * len(frames) // 4])
        axes.set_axis_off()
    line[0].set_title(name, fontsize=9, loc="left")
plt.show()
