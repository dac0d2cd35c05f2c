"""The embedded model: its figures against their aims."""

from __future__ import annotations

from hgc_video.puppet.evaluation_table import table as puppet_table

from .measured import Told, measured_on


def reconstruction(told: Told) -> str:
    """The VAE's figures in a sentence."""
    return (
        f"The VAE alone, on {told['frames']} held-out frames: {told['psnr_db']:.1f} dB "
        f"({told['psnr_min_db']:.1f} to {told['psnr_max_db']:.1f}), gradient energy "
        f"{told['gradient_energy']:.3f} of the truth's, 16 frames decoded in "
        f"{told['decode_16_frames_s']:.2f} s of processor time."
    )


def depth(told: Told) -> str:
    """The depth estimator's figures in a sentence."""
    return (
        f"The depth estimator, on {told['header']['clips']} held-out clips: off by {told['error']:.3f} of "
        f"the range, by {told['error_of_the_dancer']:.3f} on the dancer, whose arms and legs it blurs; the "
        f"mean depth is off by {told['error_of_the_mean']:.3f}."
    )


def fidelity(told: Told) -> str:
    """The embedded model's figures against their aims."""
    figures = told["evaluations"][told["header"]["model"]]
    options, true = figures["options"], figures["pose"]["of_true_clips"]
    return (
        f"{puppet_table({'puppet': figures})}\n\n"
        f"{options['clips']} held-out clips of {options['num_frames']} frames, half pose, half depth, "
        f"{options['num_inference_steps']} steps; the last three rows on {options['extras']} clips. Of true "
        f"clips the judge finds an IoU of {true['silhouette_iou']:.2f} and a flicker of "
        f"{true['background_flicker']:.1f}; {measured_on(told)}."
    )
