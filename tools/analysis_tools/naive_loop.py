"""A naive prediction, the baseline of benchmark.py: unmodified modules of mmaction2 and mmdet, everything recomputed
for each sentence, masks of all queries of all decoder layers. The weights are those of the given model.
"""

import mmcv.cnn.bricks.transformer
import mmcv.ops
import torch
import torch.nn.functional as F
from einops import rearrange
from mmdet.structures.mask import encode_mask_results
from torch import nn

from mmsoc.models import SOC, VideoSwin
from mmsoc.models.backbones import video_swin
from mmsoc.models.layers import transformer
from mmsoc.models.necks.mmf import CrossAttentionGate

_swin = video_swin._swin


class PlainVideoSwin(VideoSwin):
    """The forward pass of mmaction2's backbone: full attention weights in a window, a mask for every window."""

    def forward(self, clip):
        x = self.pos_drop(self.patch_embed(rearrange(clip, 'b t c h w -> b c t h w')))
        outputs = []
        for stage in self.layers:
            x = stage(x.contiguous(), do_downsample=False)
            outputs.append(rearrange(x, 'b t h w c -> (b t) c h w').contiguous())
            if stage.downsample is not None:
                x = rearrange(stage.downsample(x), 'b t h w c -> b c t h w')
        return tuple(outputs)


class WeighingGate(CrossAttentionGate):
    """Computes the attention map, the default of PyTorch's module."""

    def forward(self, query, key, value, key_padding_mask):
        return query * self.attn(query, key, value, key_padding_mask=key_padding_mask)[0]


def make_plain(model: SOC) -> SOC:
    """Runs the model's modules by their original library classes."""
    plain = {
        VideoSwin: PlainVideoSwin,
        video_swin._Stage: _swin.BasicLayer,
        video_swin._Block: _swin.SwinTransformerBlock3D,
        video_swin._WindowAttention: _swin.WindowAttention3D,
        transformer.MultiScaleDeformableAttention: mmcv.ops.MultiScaleDeformableAttention,
        transformer.MultiheadAttention: mmcv.cnn.bricks.transformer.MultiheadAttention,
        transformer._BoundedSequential: nn.Sequential,
        CrossAttentionGate: WeighingGate,
    }
    for module in model.modules():
        module.__class__ = plain.get(type(module), type(module))
    return model


def decode_plainly(head, features, kernels, points):
    """`DynamicMaskHead.decode_masks` with its (8 + 2)-channel input materialized for every query."""
    num_frames, num_queries = kernels.shape[1:3]
    height, width = features.shape[-2:]
    stride, device = head.mask_stride, features.device
    y, x = torch.meshgrid(
        *(torch.arange(n, device=device) * stride + stride // 2 for n in (height, width)), indexing='ij'
    )
    points = rearrange(points, 'm t q xy -> (m t) q xy 1 1')
    relative = points - torch.stack([x, y])
    seen = torch.cat([features[:, None].expand(-1, num_queries, -1, -1, -1), relative], 2)
    weights, biases = head._split_kernels(rearrange(kernels, 'm t q p -> (m t q) p'))
    out = rearrange(seen, 'f q c h w -> 1 (f q c) h w')
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        out = F.conv2d(
            out.relu() if index else out, rearrange(weight, 'f o i -> (f o) i 1 1'), bias.flatten(), groups=len(weight)
        )
    return rearrange(out, '1 (m t q) h w -> m t q h w', t=num_frames, q=num_queries)


@torch.no_grad()
def predict_naively(model: SOC, inputs, samples, share=False):
    """The run-length codes of each sentence of one clip, and their logits (T, h, w).

    Args:
        model: after `make_plain`.
        share: run the backbone once for all sentences; nothing else changes.
    """
    (sample,) = samples
    codes, logits = [], []
    visual = model.extract_visual(inputs, samples) if share else None
    layers = range(model.sim.num_layers)
    for text in sample.texts:
        of_text = visual if share else model.extract_visual(inputs, samples)
        features = model.text_encoder([text])
        fused = model.fuse(of_text, features)
        frame = model.aggregate(of_text, fused, features.sentence)
        objects = model.sim.integrate(
            frame, features.sentence, layers=layers, video_layers=[len(layers) - 1] * len(layers)
        )
        predictions = model.head(objects, frame, of_text.image_sizes)
        mask_features = model.head.mask_features(frame.memory, of_text, features)
        masks = [
            decode_plainly(model.head, mask_features, *of_layer)
            for of_layer in zip(predictions.kernels, predictions.points, strict=True)
        ]
        layer = model.test_cfg.predict_layer
        query = predictions.logits[layer].sigmoid().mean(1).amax(-1).argmax(1)
        logits.append(masks[layer][0, :, query.item()])
        full = F.interpolate(logits[-1][None], size=tuple(sample[0].ori_shape), mode='bilinear', align_corners=False)[0]
        codes.append(encode_mask_results((full > 0).cpu().numpy()))
    return codes, logits
