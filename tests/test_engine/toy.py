"""A model, data set and metric that train in milliseconds, registered as a user's own would be."""

import json
import random

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset, get_worker_info

from mmsoc.registry import DATASETS, METRICS, MODELS


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Points with random noise from all three generators, like an augmentation; ``noise=False`` for testing."""

    def __init__(self, *, length=8, noise=True):
        self.length, self.noise = length, noise
        self.metainfo = dict(classes=('referred',), palette=np.array([[1, 2, 3]]))

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        draws = [random.random(), np.random.rand(), torch.rand(()).item()] if self.noise else [0.0, 0.0, 0.0]
        worker = get_worker_info()
        return dict(
            inputs=torch.tensor([float(index), sum(draws)]),
            targets=torch.tensor(index / 8.0),
            draws=draws,
            worker=-1 if worker is None else worker.id,
        )


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self, *, note='', width=4, explode_at=None):
        super().__init__()
        self.backbone = nn.Linear(2, width)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width, 1)
        self.note, self.explode_at = note, explode_at
        self.seen = []
        self.steps = 0

    def forward(self, inputs, targets, draws=None, worker=None, mode='tensor'):
        output = self.head(self.dropout(self.backbone(torch.stack(inputs)))).squeeze(-1)
        if mode == 'loss':
            self.steps += 1
            if self.steps == self.explode_at:
                raise FloatingPointError(f'loss is nan at iteration {self.steps}')
            self.seen += [tuple(float(d[i]) for d in draws) for i in range(len(inputs))]
            return dict(loss=(output - torch.stack(targets)).pow(2).mean())
        return [dict(prediction=float(o), target=float(t)) for o, t in zip(output, targets)]


@METRICS.register_module()
class ToyMetric(BaseMetric):
    default_prefix = 'toy'

    def __init__(self, *, out_file=None, **kwargs):
        super().__init__(**kwargs)
        self.out_file = out_file

    def process(self, data_batch, data_samples):
        self.results += [abs(sample['prediction'] - sample['target']) for sample in data_samples]

    def compute_metrics(self, results):
        if self.out_file is not None:
            with open(self.out_file, 'w') as f:
                json.dump(dict(items=len(results), errors=results), f)
        return {'J&F': np.float64(1 / (1 + np.mean(results)))}  # a NumPy scalar, as many metrics return


@DATASETS.register_module()
class ToyFamilies(ToyDataset):
    """Three families in turn."""

    def get_data_info(self, index):
        return dict(families=[('easy', 'hard', 'last')[index % 3]])
