"""The tutorial, with a data set of some videos."""

import sys

import pytest

nbclient = pytest.importorskip('nbclient')
nbformat = pytest.importorskip('nbformat')


@pytest.mark.timeout(300)
def test_the_tutorial_runs(root, tmp_path, monkeypatch):
    pytest.importorskip('ipykernel')
    monkeypatch.setenv('MMSOC_TUTORIAL_VIDEOS', '16')
    notebook = nbformat.read(root / 'demo' / 'mmsoc_tutorial.ipynb', as_version=4)
    nbformat.validate(notebook)
    # The kernel of this Python, whatever kernels are installed.
    monkeypatch.setenv('PYTHONPATH', str(root))
    client = nbclient.NotebookClient(notebook, timeout=240, resources=dict(metadata=dict(path=str(tmp_path))))
    client.create_kernel_manager()
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute()
    text = str([cell.get('outputs') for cell in notebook.cells])
    assert 'rvos/J&F_order' in text and 'segmented/overlay.mp4' in text
    assert (tmp_path / 'work_dirs' / 'tutorial' / 'epoch_8.pth').is_file()


def test_the_committed_outputs_are_small_and_without_paths(root):
    path = root / 'demo' / 'mmsoc_tutorial.ipynb'
    assert path.stat().st_size < 1_500_000
    text = path.read_text()
    assert str(root) not in text and '/home/' not in text and '/root/' not in text
    assert all(cell.execution_count for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == 'code')
