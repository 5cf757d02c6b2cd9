import logging
from types import SimpleNamespace

import pytest

from mmsoc.registry import HOOKS


@pytest.mark.parametrize(
    'resume, load_from, level, words',
    [
        (False, None, logging.WARNING, 'load_from is None: this recipe starts from pictures'),
        (False, 'a.pth', logging.INFO, 'Training starts from a.pth'),
        (True, None, None, ''),
    ],
)
def test_it_is_said(resume, load_from, level, words, caplog):
    hook = HOOKS.build(dict(type='StartingPointHook', wanted='pictures'))
    logger = logging.getLogger('starting-point')
    with caplog.at_level(logging.INFO, 'starting-point'):
        hook.before_train(SimpleNamespace(_resume=resume, _load_from=load_from, logger=logger))
    assert [record.levelno for record in caplog.records] == ([level] if level else [])
    assert words in caplog.text
