"""Progress of long runs on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(
    description: str, elsewhere: Callable[[int, int], None] | None = None
) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, which disappears when the block ends.

    Args:
        elsewhere: called instead if stderr is not a terminal.

    Yields:
        A function to be called with the amount done and the total.
    """
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_interactive)
    task = bar.add_task(description, total=None)

    def show(done: int, total: int) -> None:
        bar.start()  # started after a pool has forked, whose processes must not inherit its thread's locks
        bar.update(task, completed=done, total=total)

    try:
        yield show if console.is_interactive or elsewhere is None else elsewhere
    finally:
        bar.stop()
