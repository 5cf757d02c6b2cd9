"""Prints the findings."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from .check import KINDS, RootCheck


def print_report(check: RootCheck, most: int) -> None:
    """Prints the findings by kind, at most ``most`` lines of each, the notes, and the counts."""
    for kind, title in KINDS.items():
        found = [finding for finding in check.findings if finding.kind == kind]
        if found:
            print(f'{title} ({len(found):,}):')
            print('\n'.join(f'  {finding}' for finding in found[:most]))
            if len(found) > most:
                print(f'  and {len(found) - most:,} more')
    for note in check.notes[:most]:
        print(f'note: {note}')
    if len(check.notes) > most:
        print(f'note: and {len(check.notes) - most:,} more of these')
    table = Table()
    for name in ('', 'found', 'documented'):
        table.add_column(name, justify='right' if name else 'left', overflow='fold')
    for what, number, documented in check.counts:
        mark = ' !' if check.sizes and documented not in (None, number) else ''
        table.add_row(what, f'{number:,}', ('' if documented is None else f'{documented:,}') + mark)
    if check.counts:
        table.add_section()
    for kind, number in Counter(finding.kind for finding in check.findings).items():
        table.add_row(f'findings: {KINDS[kind]}', f'{number:,}', '')
    table.add_row('findings', f'{len(check.findings):,}', '0')
    Console(width=120).print(table)
