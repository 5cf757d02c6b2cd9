import math
from collections.abc import Sequence

import torch
from einops import rearrange
from mmdet.models.layers import MLP
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsoc.models.layers.transformer import refine_boxes
from mmsoc.registry import MODELS
from mmsoc.structures import FrameQueries, ObjectQueries, Predictions, TextFeatures, VisualFeatures
from mmsoc.utils.errors import UserError


@MODELS.register_module()
class DynamicMaskHead(BaseModule):
    """Class, box and kernel branches, pixel decoder and dynamic convolution (paper section 3.5, Eq. 7).

    Args:
        pixel_decoder: e.g. `FPNPixelDecoder`; its ``out_channels`` must be ``mask_channels``.
        embed_dims: C.
        num_classes: K, number of class logits. 1 is "referred or not" (the paper's K = 0).
        num_layers: D, number of decoder layers; each has its own class and box branch.
        num_cls_fcs: fully connected layers of the class branch (3: the paper; 1: the released implementation).
        mask_channels: channels of the mask features.
        kernel_channels: channels between the dynamic convolutions.
        num_convs: number of dynamic convolutions.
        mask_stride: stride of the pixel decoder's output in both axes.
        kernel_std: initial deviation of the last kernel layer; None: Xavier, as in ReferFormer.
    """

    def __init__(
        self,
        *,
        pixel_decoder: dict,
        embed_dims: int = 256,
        num_classes: int = 1,
        num_layers: int = 3,
        num_cls_fcs: int = 3,
        mask_channels: int = 8,
        kernel_channels: int = 8,
        num_convs: int = 3,
        mask_stride: int = 4,
        kernel_std: float | None = 0.01,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_classes < 1:
            raise UserError(
                f'DynamicMaskHead: num_classes counts the logits and must be at least 1, found {num_classes} '
                '(the paper\'s K = 0, "referred or not", is num_classes=1)'
            )
        self.num_classes = num_classes
        self.mask_stride = mask_stride
        self.kernel_std = kernel_std
        self.pixel_decoder = MODELS.build(pixel_decoder)
        self.cls_branches = nn.ModuleList(
            MLP(embed_dims, embed_dims, num_classes, num_cls_fcs) for _ in range(num_layers)
        )
        self.box_branches = nn.ModuleList(MLP(embed_dims, embed_dims, 4, 3) for _ in range(num_layers))
        # (in, out) of each dynamic convolution; the first also sees the relative coordinates (x, y).
        widths = [mask_channels + 2] + [kernel_channels] * (num_convs - 1) + [1]
        self.conv_shapes = list(zip(widths[:-1], widths[1:], strict=True))
        self.kernel_branch = MLP(embed_dims, embed_dims, sum(i * o + o for i, o in self.conv_shapes), 3)

    def init_weights(self) -> None:
        super().init_weights()
        # Initially few positives, for the focal loss, and small boxes at the reference.
        for branch in self.cls_branches:
            nn.init.constant_(branch.layers[-1].bias, -math.log(99))
        for branch in self.box_branches:
            nn.init.zeros_(branch.layers[-1].weight)
            nn.init.zeros_(branch.layers[-1].bias)
        nn.init.constant_(self.box_branches[0].layers[-1].bias[2:], -2.0)
        for layer in self.kernel_branch.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Kernels start small, as in CondInst: they multiply coordinates in pixels, so the first mask logits would
        # otherwise be in the hundreds.
        if self.kernel_std is not None:
            nn.init.normal_(self.kernel_branch.layers[-1].weight, std=self.kernel_std)

    def mask_features(self, memory: Sequence[Tensor], visual: VisualFeatures, text: TextFeatures) -> Tensor:
        """(M*T, mask_channels, h, w) at ``mask_stride``.

        Args:
            memory: SIM's maps.
            visual: of the M sentences' clips.
            text: of the M sentences.
        """
        return self.pixel_decoder(memory, visual, text)

    def forward(self, objects: ObjectQueries, frame: FrameQueries, image_sizes: Tensor) -> Predictions:
        """Everything but the masks, for the S selected decoder layers.

        Args:
            objects: from SIM.
            frame: from SIM; its references anchor boxes and masks.
            image_sizes: (M, 2), un-padded (width, height) in pixels.
        """
        logits = [
            self.cls_branches[layer](queries) for layer, queries in zip(objects.layers, objects.queries, strict=True)
        ]
        boxes = []
        for layer, queries in zip(objects.layers, objects.queries, strict=True):
            # The branch refines the decoder layer's input reference: a point in the first layer, then a box.
            entered = frame.initial_reference if layer == 0 else frame.references[layer - 1]
            boxes.append(refine_boxes(self.box_branches[layer](queries), entered))
        points = torch.stack([frame.references[layer][..., :2] for layer in objects.layers])
        return Predictions(
            logits=torch.stack(logits),
            boxes=torch.stack(boxes),
            kernels=self.kernel_branch(objects.queries),
            points=points * image_sizes[:, None, None],
        )

    def decode_masks(self, features: Tensor, kernels: Tensor, points: Tensor) -> Tensor:
        """Dynamic convolution of the mask features (Eq. 7), each query with its own kernel and relative coordinates.

        Always in float32: coordinates reach the size of the image in pixels.

        Args:
            features: (M*T, mask_channels, h, w).
            kernels: (M, T, Q, P) for any Q queries.
            points: (M, T, Q, 2) in pixels (x, y).

        Returns:
            (M, T, Q, h, w) mask logits at ``mask_stride``.
        """
        with torch.autocast(features.device.type, enabled=False):
            height, width = features.shape[-2:]
            num_frames, num_queries = kernels.shape[1:3]
            kernels_FP = rearrange(kernels.float(), 'm t q p -> (m t q) p')
            weights, biases = self._split_kernels(kernels_FP)
            points_F2 = rearrange(points.float(), 'm t q xy -> (m t q) xy')
            # A location is the centre of its cell.
            column = torch.arange(width, device=features.device) * self.mask_stride + self.mask_stride // 2
            row = torch.arange(height, device=features.device) * self.mask_stride + self.mask_stride // 2
            relative_x = points_F2[:, None, 0:1] - column
            relative_y = points_F2[:, None, 1:2] - row

            # First convolution: the queries of a frame share its feature part, and one coordinate depends only on the
            # column, the other only on the row, so the (F, 10, h, w) input is never materialized.
            weight, weight_xy = weights[0][..., :-2], weights[0][..., -2:]
            of_columns = weight_xy[..., 0:1] * relative_x
            of_rows = torch.addcmul(biases[0][..., None], weight_xy[..., 1:2], relative_y)
            x = rearrange(of_rows[..., None] + of_columns[:, :, None], '(f q) o h w -> f (q o) (h w)', q=num_queries)
            shared = rearrange(weight, '(f q) o i -> f (q o) i', q=num_queries)
            pixels = rearrange(features.float(), 'f c h w -> f c (h w)')
            # In place if there is no gradient, which avoids a copy.
            x = torch.baddbmm(x, shared, pixels) if torch.is_grad_enabled() else x.baddbmm_(shared, pixels)
            x = rearrange(x, 'f (q o) p -> (f q) o p', q=num_queries)
            for weight, bias in zip(weights[1:], biases[1:], strict=True):
                x = torch.baddbmm(bias[..., None], weight, x.relu_())
            return rearrange(x, '(m t q) 1 (h w) -> m t q h w', t=num_frames, q=num_queries, h=height)

    def _split_kernels(self, kernels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(F, P) -> weights (F, out, in) and biases (F, out): all weights come first, then all biases."""
        sizes = [i * o for i, o in self.conv_shapes] + [o for _, o in self.conv_shapes]
        parts = kernels.split(sizes, 1)
        weights = [part.unflatten(1, (o, i)) for part, (i, o) in zip(parts, self.conv_shapes, strict=False)]
        return weights, list(parts[len(self.conv_shapes) :])
