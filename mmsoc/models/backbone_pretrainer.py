from collections.abc import Sequence

from mmdet.structures import TrackDataSample
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmsoc.registry import MODELS
from mmsoc.utils.errors import UserError


@MODELS.register_module()
class BackbonePretrainer(BaseModel):
    """Pre-trains a backbone to classify a data set's objects, before referring segmentation.

    For a backbone without published weights (the paper's comes from Kinetics-400). Its checkpoint can be used as
    ``backbone.pretrained`` of a SOC config, or, with neck and head, as ``load_from``: its names are those of a `SOC` that has
    ``head`` as its first auxiliary head.

    Args:
        backbone: as in `SOC`.
        neck: as in `SOC`; the categories are predicted from its levels, since the fusion will see these.
        head: `CategoryMapHead`.
        data_preprocessor: as in `SOC`.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        neck: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.auxiliary_heads = nn.ModuleList([MODELS.build(head)])

    def forward(
        self, inputs: Tensor, data_samples: Sequence[TrackDataSample], mode: str = 'tensor'
    ) -> dict[str, Tensor] | tuple:
        """
        Args:
            inputs: (B, T, 3, H, W), normalised.
            data_samples: B, with ``gt_sem_seg`` for mode ``'loss'``.
            mode: ``'loss'``: the losses; ``'tensor'``: the neck's levels, (B*T, C, h_i, w_i) each.

        Raises:
            ValueError: any other mode; the model does not predict.
        """
        if mode not in ('loss', 'tensor'):
            raise UserError(f"BackbonePretrainer: mode must be 'loss' or 'tensor', found {mode!r}; it only trains")
        levels = self.neck(self.backbone(inputs)[1:])
        (head,) = self.auxiliary_heads
        return head.loss_by_level(levels, data_samples) if mode == 'loss' else levels
