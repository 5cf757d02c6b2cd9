"""The folder of a data set."""

import os


def check_root(data_root: str, expected: str) -> None:
    """Checks that the folder ``data_root`` exists (unless it is ''); ``expected`` describes its content for the
    message.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if data_root and not os.path.isdir(data_root):
        raise FileNotFoundError(
            f'data_root: there is no folder {data_root} (looked in {os.getcwd()}); expected the data set as it is published, '
            f'unpacked there, with {expected}. The environment variable MMSOC_DATA names another folder than ./data'
        )
