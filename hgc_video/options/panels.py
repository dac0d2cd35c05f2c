"""Which options belong together: what help and forms show under one heading."""

from __future__ import annotations

PANELS: dict[str, tuple[str, ...]] = {
    "What is made": (
        "out", "prompt", "negative_prompt", "seed", "video", "strength", "image", "motion",
    ),
    "Control": (
        "control_video", "control", "conditioning_scale", "control_guidance_start", "control_guidance_end",
        "extract", "fidelity", "invert_depth", "source_fps", "force",
    ),
    "Frames": (
        "num_frames", "frames", "every", "loop", "scenes", "scenes_of", "fps", "height", "width",
        "context_length", "context_overlap",
    ),
    "Steps and cost": (
        "preset", "net", "num_inference_steps", "guidance_scale", "scheduler", "memory", "auto_calibrate",
        "calibration_dir",
    ),
    "Model": (
        "model", "base", "base_config", "motion_adapter", "vae", "controlnet", "lora", "ip_adapter",
        "ip_adapter_scale", "ip_adapter_model", "clip_skip", "prompt_syntax", "device", "devices", "dtype",
        "offline",
    ),
    "Sound and file": ("audio", "codec", "crf", "pix_fmt", "metadata"),
    "Stop and go on": ("work", "checkpoint_every_s"),
}  # fmt: skip


def panel_of(option: str) -> str:
    """The heading of an option; KeyError where it has none."""
    return {name: panel for panel, names in PANELS.items() for name in names}[option]
