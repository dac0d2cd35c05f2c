"""Stock pipelines of every supported class around small random models."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AnimateDiffControlNetPipeline,
    AnimateDiffPAGPipeline,
    AnimateDiffPipeline,
    AnimateDiffSDXLPipeline,
    AnimateDiffSparseControlNetPipeline,
    AnimateDiffVideoToVideoControlNetPipeline,
    AnimateDiffVideoToVideoPipeline,
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    ControlNetModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    MotionAdapter,
    MultiControlNetModel,
    SparseControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from hgc_video.models.load import model_folder
from hgc_video.models.svd_controlnet import SpatioTemporalControlNetModel

FRAMES, WIDTH, PIXELS = 4, 32, 32
_UNET = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64),
    "layers_per_block": 1, "norm_num_groups": 2, "cross_attention_dim": WIDTH,
}  # fmt: skip
_DOWN, _UP = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
_XL = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": WIDTH + 6 * 8, "use_linear_projection": True,
}  # fmt: skip


def vae():
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(32, 64, 64), in_channels=3, out_channels=3, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
    ).eval()  # fmt: skip


def text(cls=CLIPTextModel):
    torch.manual_seed(1)
    words = AutoTokenizer.from_pretrained(
        model_folder("puppet") / "tokenizer", local_files_only=True
    )
    config = CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2,
        projection_dim=WIDTH, vocab_size=len(words), max_position_embeddings=words.model_max_length,
        bos_token_id=words.bos_token_id or 0, eos_token_id=words.eos_token_id or 1,
        pad_token_id=words.pad_token_id or 1,
    )  # fmt: skip
    return cls(config).eval(), words


def unet(**more: Any):
    torch.manual_seed(2)
    return UNet2DConditionModel(
        **{
            **_UNET,
            "down_block_types": _DOWN,
            "up_block_types": _UP,
            "attention_head_dim": 2,
            **more,
        }
    ).eval()


def xl_unet():
    return unet(**_XL, transformer_layers_per_block=(1, 2))


def adapter(**more: Any):
    torch.manual_seed(3)
    sizes = {
        "block_out_channels": (32, 64), "motion_layers_per_block": 1, "motion_norm_num_groups": 2,
        "motion_num_attention_heads": 4, "motion_max_seq_length": 8, **more,
    }  # fmt: skip
    made = MotionAdapter(**sizes).eval()
    for name, weights in made.named_parameters():  # fresh motion modules end in zeros
        if "proj_out" in name:
            torch.nn.init.normal_(weights, std=0.1)
    return made


def loud(net):
    """A fresh ControlNet ends in zero convolutions; these are not zero."""
    parts = [*net.controlnet_down_blocks, net.controlnet_mid_block]
    hint = net.controlnet_cond_embedding
    parts.append(hint if isinstance(hint, torch.nn.Conv2d) else hint.conv_out)
    for part in parts:
        torch.nn.init.normal_(part.weight, std=0.2)
    return net


def controlnet(seed: int = 4, **more: Any):
    torch.manual_seed(seed)
    kept = {k: v for k, v in _UNET.items() if k not in ("sample_size", "out_channels")}
    return loud(
        ControlNetModel(
            down_block_types=_DOWN,
            attention_head_dim=2,
            conditioning_embedding_out_channels=(8, 16, 16),
            **{**kept, **more},
        ).eval()
    )


def sparse_controlnet():
    torch.manual_seed(5)
    return loud(
        SparseControlNetModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            in_channels=4,
            norm_num_groups=2,
            down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
            conditioning_channels=4,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            motion_max_seq_length=8,
            motion_num_attention_heads=4,
        ).eval()
    )


def scheduler():
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        steps_offset=1,
    )


def images(count: int = FRAMES):
    generator = torch.Generator().manual_seed(6)
    pixels = torch.randint(0, 256, (count, PIXELS, PIXELS, 3), generator=generator)
    return [Image.fromarray(frame.numpy().astype("uint8")) for frame in pixels]


def _common():
    encoder, words = text()
    return {"vae": vae(), "text_encoder": encoder, "tokenizer": words, "scheduler": scheduler()}


def animatediff(cls=AnimateDiffPipeline, **more: Any):
    return cls(**_common(), unet=unet(), motion_adapter=adapter(), **more)


def xl_texts():
    encoder, words = text()
    second, other = text(CLIPTextModelWithProjection)
    return {
        "vae": vae(), "text_encoder": encoder, "tokenizer": words, "text_encoder_2": second,
        "tokenizer_2": other, "scheduler": scheduler(),
    }  # fmt: skip


def xl_sizes():
    return {"cross_attention_dim": 2 * WIDTH, **_XL}


def sdxl(cls, **more: Any):
    return cls(**xl_texts(), unet=_wide_unet(), **more)


def _wide_unet():
    torch.manual_seed(2)
    sizes = {**_UNET, **xl_sizes()}
    return UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=2,
        transformer_layers_per_block=(1, 2), **sizes,
    ).eval()  # fmt: skip


def svd():
    torch.manual_seed(7)
    made = UNetSpatioTemporalConditionModel(
        sample_size=8, in_channels=8, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=WIDTH, num_attention_heads=(2, 4), num_frames=FRAMES,
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24,
    ).eval()  # fmt: skip
    coder = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64, 64), in_channels=3, out_channels=3, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 3,
    ).eval()  # fmt: skip
    sight = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=224,
            intermediate_size=37,
            patch_size=56,
        )
    ).eval()
    sigmas = EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True,
        sigma_min=0.002, sigma_max=700.0,
    )  # fmt: skip
    return StableVideoDiffusionPipeline(
        vae=coder, image_encoder=sight, unet=made, scheduler=sigmas,
        feature_extractor=CLIPImageProcessor(),
    )  # fmt: skip


def svd_controlnet():
    """One for `svd`, beside which diffusers has none."""
    torch.manual_seed(8)
    return loud(SpatioTemporalControlNetModel.from_unet(svd().unet, (8, 16, 16)).eval())


TWO = ["a dancer in a red shirt", "a dancer in a green shirt on a beach"]
_PROMPT = {"prompt": "a dancer in a red shirt", "guidance_scale": 3.0, "num_inference_steps": 5}
_CLIP = {
    **_PROMPT,
    "num_frames": FRAMES,
    "height": PIXELS,
    "width": PIXELS,
    "output_type": "latent",
}
_IMAGE = {**_PROMPT, "height": PIXELS, "width": PIXELS, "output_type": "latent"}
_IMAGE_OF_VIDEO = {**_PROMPT, "output_type": "latent"}

# By name: what makes the pipeline, and what it is called with.
PIPELINES = {
    "animatediff": (animatediff, lambda: _CLIP),
    "animatediff without guidance": (animatediff, lambda: {**_CLIP, "guidance_scale": 1.0}),
    "animatediff two clips": (animatediff, lambda: {**_CLIP, "prompt": TWO}),
    "controlnet": (
        lambda: animatediff(AnimateDiffControlNetPipeline, controlnet=controlnet()),
        lambda: {**_CLIP, "conditioning_frames": images()},
    ),
    "controlnet in a window": (
        lambda: animatediff(AnimateDiffControlNetPipeline, controlnet=controlnet()),
        lambda: {
            **_CLIP, "conditioning_frames": images(), "control_guidance_start": 0.3,
            "control_guidance_end": 0.7,
        },
    ),
    "two controlnets": (
        lambda: animatediff(
            AnimateDiffControlNetPipeline, controlnet=MultiControlNetModel([controlnet(), controlnet(9)])
        ),
        lambda: {
            **_CLIP, "conditioning_frames": [images(), images()[::-1]],
            "controlnet_conditioning_scale": [0.7, 0.5],
        },
    ),
    "video to video": (
        lambda: animatediff(AnimateDiffVideoToVideoPipeline),
        lambda: {**_IMAGE, "video": images(), "strength": 0.8, "num_inference_steps": 6},
    ),
    "video to video with controlnet": (
        lambda: animatediff(AnimateDiffVideoToVideoControlNetPipeline, controlnet=controlnet()),
        lambda: {
            **_IMAGE, "video": images(), "strength": 0.8, "conditioning_frames": images()[::-1],
            "num_inference_steps": 6,
        },
    ),
    "sparse controlnet": (
        lambda: animatediff(AnimateDiffSparseControlNetPipeline, controlnet=sparse_controlnet()),
        lambda: {
            **_CLIP, "conditioning_frames": images(2), "controlnet_frame_indices": [0, 2],
        },
    ),
    "pag": (
        lambda: animatediff(AnimateDiffPAGPipeline, pag_applied_layers="mid"),
        lambda: {**_CLIP, "pag_scale": 2.0},
    ),
    "animatediff sdxl": (
        lambda: sdxl(AnimateDiffSDXLPipeline, motion_adapter=adapter(use_motion_mid_block=False)),
        lambda: _CLIP,
    ),
    "svd": (
        svd,
        lambda: {
            "image": images(1)[0], "num_frames": FRAMES, "height": PIXELS, "width": PIXELS,
            "num_inference_steps": 5, "output_type": "latent",
        },
    ),
    "sd": (
        lambda: StableDiffusionPipeline(
            **_common(), unet=unet(), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        ),
        lambda: _IMAGE,
    ),
    "sd controlnet": (
        lambda: sd_controlnet(),
        lambda: {**_IMAGE_OF_VIDEO, "image": images(1)[0], "num_images_per_prompt": 2},
    ),
    "sd controlnet in guess mode": (
        lambda: sd_controlnet(),
        lambda: {**_IMAGE_OF_VIDEO, "image": images(1)[0], "guess_mode": True},
    ),
    "sdxl": (lambda: sdxl(StableDiffusionXLPipeline), lambda: _IMAGE),
    "sdxl controlnet": (
        lambda: sdxl(StableDiffusionXLControlNetPipeline, controlnet=xl_controlnet()),
        lambda: {**_IMAGE_OF_VIDEO, "image": images(1)[0]},
    ),
}  # fmt: skip


def sd_controlnet():
    return StableDiffusionControlNetPipeline(
        **_common(), unet=unet(), controlnet=controlnet(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def xl_controlnet():
    torch.manual_seed(4)
    kept = {
        k: v for k, v in {**_UNET, **xl_sizes()}.items() if k not in ("sample_size", "out_channels")
    }
    return loud(
        ControlNetModel(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            attention_head_dim=2,
            transformer_layers_per_block=(1, 2),
            conditioning_embedding_out_channels=(8, 16, 16),
            **kept,
        ).eval()
    )


def make(name: str):
    """The pipeline of a name."""
    pipe = PIPELINES[name][0]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe, name: str, *, seed: int = 0, generators: int = 0, **more: Any):
    """The final latents of a call, with a generator or a list of so many."""
    given = {**PIPELINES[name][1](), **more}
    torch.manual_seed(0)  # the SparseCtrl pipeline draws from the global generator
    seeds = [torch.Generator().manual_seed(seed + i) for i in range(generators or 1)]
    out = pipe(**given, generator=seeds if generators else seeds[0])
    return (out.frames if hasattr(out, "frames") else out.images).clone()


def assert_near(given, plain, within: float = 0.25):
    """Holds where a cached result is not the uncached one, and far nearer to it than another noise's, whose
    relative distance is about 1.4."""
    distance = float((given - plain).norm() / plain.norm())
    assert 0 < distance < within, f"relative distance {distance}"
