"""mmsoc's registries: children of MMEngine's root registries in the scope ``mmsoc``.

``locations`` name the modules that are imported at the first look-up, so that ``default_scope = 'mmsoc'`` in a config, or
``type='mmsoc.VideoSwin'`` in another project's config, is enough to find every component.

All of MMEngine's registries have a child here, even those in which mmsoc registers nothing: without it, MMEngine warns
at each look-up under ``default_scope = 'mmsoc'``.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import EVALUATOR as MMENGINE_EVALUATOR
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOG_PROCESSORS as MMENGINE_LOG_PROCESSORS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

_SCOPE = 'mmsoc'


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope=_SCOPE, locations=list(locations))


RUNNERS = _child('runner', MMENGINE_RUNNERS, 'mmsoc.engine')
LOOPS = _child('loop', MMENGINE_LOOPS, 'mmsoc.engine')
HOOKS = _child('hook', MMENGINE_HOOKS, 'mmsoc.engine')
LOG_PROCESSORS = _child('log_processor', MMENGINE_LOG_PROCESSORS, 'mmsoc.engine')
OPTIMIZERS = _child('optimizer', MMENGINE_OPTIMIZERS, 'mmsoc.engine')
OPTIM_WRAPPERS = _child('optim_wrapper', MMENGINE_OPTIM_WRAPPERS, 'mmsoc.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('optim_wrapper_constructor', MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, 'mmsoc.engine')
PARAM_SCHEDULERS = _child('param_scheduler', MMENGINE_PARAM_SCHEDULERS, 'mmsoc.engine')
MODEL_WRAPPERS = _child('model_wrapper', MMENGINE_MODEL_WRAPPERS, 'mmsoc.engine')
FUNCTIONS = _child('function', MMENGINE_FUNCTIONS, 'mmsoc.engine')
STRATEGIES = _child('strategy', MMENGINE_STRATEGIES, 'mmsoc.engine')

DATASETS = _child('dataset', MMENGINE_DATASETS, 'mmsoc.datasets')
DATA_SAMPLERS = _child('data_sampler', MMENGINE_DATA_SAMPLERS, 'mmsoc.datasets')
TRANSFORMS = _child('transform', MMENGINE_TRANSFORMS, 'mmsoc.datasets')

MODELS = _child('model', MMENGINE_MODELS, 'mmsoc.models')
TASK_UTILS = _child('task util', MMENGINE_TASK_UTILS, 'mmsoc.models', 'mmsoc.datasets', 'mmsoc.inference')
WEIGHT_INITIALIZERS = _child('weight initializer', MMENGINE_WEIGHT_INITIALIZERS, 'mmsoc.models')

METRICS = _child('metric', MMENGINE_METRICS, 'mmsoc.evaluation')
EVALUATOR = _child('evaluator', MMENGINE_EVALUATOR, 'mmsoc.evaluation')

VISUALIZERS = _child('visualizer', MMENGINE_VISUALIZERS, 'mmsoc.visualization')
VISBACKENDS = _child('vis_backend', MMENGINE_VISBACKENDS, 'mmsoc.visualization')
