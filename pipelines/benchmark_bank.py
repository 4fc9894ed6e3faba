"""How many labelers one bank server carries, on this machine.

    python pipelines/benchmark_bank.py --labelers 64 --unit-s 1 --rows 64

Simulated labelers merge at the rate given; the server is the real actor. The feeders share this
machine with it, so look at the server's CPU time for a merge rather than at the rate reached.
"""

from __future__ import annotations

import tyro
from rich.console import Console

from mint_stream.benchmark.bank import BankLoad, print_figures


def main() -> None:
    """Parse and run."""
    print_figures(tyro.cli(BankLoad, description=__doc__), Console(highlight=False))


if __name__ == "__main__":
    main()
