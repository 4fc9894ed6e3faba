"""A run without Ray: the product's own stages, called one after the other in this process."""

from __future__ import annotations

from mint_stream.bank.client import BankClient
from mint_stream.bank.server import BankServer
from mint_stream.config import RunConfig
from mint_stream.input.units import Undisturbed, read_shard
from mint_stream.labeler.labeler import MintLabeler
from mint_stream.output.commit import commit_unit
from mint_stream.output.done import load_done
from mint_stream.pipeline.parts import labeler_config, read_config, run_bank
from mint_stream.pipeline.run import prepare_run


def run_plainly(config: RunConfig, *, checkpoint_every: int = 0) -> int:
    """Label what is left with one labeler, and commit it; gives the number of units.

    checkpoint_every: units between two bank checkpoints; 0 for one at the end.
    """
    run = prepare_run(config)
    prepared, store = run.prepared, run.prepared.store
    server = BankServer(run_bank(config, prepared)) if config.keeps_bank else None
    client = None if server is None else BankClient(server)
    labeler = MintLabeler(labeler_config(config, prepared, 0), client)
    units = 0
    done = load_done(store, prepared.unit_size)
    for shard in run._suspects(done) if config.relabel_suspect else run._left(done):
        for unit in read_shard(shard, read_config(config, prepared), Undisturbed()):
            commit_unit(labeler(unit), store, server, again=config.relabel_suspect)
            units += 1
            if server is not None and checkpoint_every and units % checkpoint_every == 0:
                server.checkpoint()
    if server is not None and units:
        server.finish()
    return units
