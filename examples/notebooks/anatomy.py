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
# # Where the schedules come from
#
# What `hgc-video calibrate` measured of the embedded model: how much each layer changes from step to step, what an
# error at a step does to the result, and how far it pays to extrapolate what is reused.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from hgc_video.plan.calibration import load_calibration
from hgc_video.plan.policies.searched import load_coded_schedule

root = Path.cwd()
while not (root / "configs").is_dir():
    root = root.parent
measured = load_calibration(root / "configs" / "puppet-calibration.yaml")
print(measured.setting, f"{measured.clips} clips of {measured.num_frames} frames")

# %%
layers = [
    name
    for name in measured.changes
    if name.startswith("unet.") and ("blocks" in name or "conv" in name)
]
changes = np.array([measured.changes[name] for name in layers])
figure, axes = plt.subplots(figsize=(9, 7), layout="constrained")
count, steps = changes.shape
edges = (0.5, steps - 0.5, count - 0.5, -0.5)  # the first step has none before it
drawn = axes.imshow(np.log10(changes[:, 1:].clip(1e-3)), aspect="auto", cmap="magma", extent=edges)
axes.set(
    xlabel="step",
    ylabel="layer, first to last",
    title="Relative change from the step before, log10",
)
figure.colorbar(drawn)
plt.show()

# %% [markdown]
# Deep layers move less than outer ones, and everything moves most at the beginning and at the end. The next
# plot shows what a prediction's error costs in the end, and what dropping guidance would be wrong by.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
left.semilogy(measured.sensitivity)
left.set(
    xlabel="step", ylabel="error of the result per error of the prediction", title="Gain of a step"
)
right.semilogy(measured.cfg_drop_error)
right.set(xlabel="step", ylabel="mean square", title="Error of dropping the prompt-free branch")
plt.show()

# %%
steps = measured.setting.num_inference_steps
figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
for cut, table in measured.reused.items():
    for gap in (1, 2, 4):
        best = [
            (-b / q if q else np.nan)
            for _, b, q in (table.get((s - 2 * gap, s - gap, s), (0, 0, 0)) for s in range(steps))
        ]
        axes.plot(best, label=f"{'prediction' if cut == 0 else f'cut {cut}'}, {gap} steps ahead")
axes.set(
    xlabel="step",
    ylabel="best share of the last slope",
    ylim=(0, 1.6),
    title="How far to extrapolate",
)
axes.legend(fontsize=8, ncols=2)
plt.show()

# %% [markdown]
# Half of the slope is right early, all of it late. The schedules that were found (F everything, 1 the outermost
# layers, H nothing, T without the ControlNet):

# %%
for name in ("quality", "balanced", "fast", "turbo"):
    plan = load_coded_schedule(root / "configs" / "schedules" / f"{name}.yaml")
    print(f"{name:9} {plan.actions}  one branch from step {plan.gate}")
