"""Train a configuration. The same command again goes on where the last one ended; Ctrl-C saves first.

  lmlab train experiments/quickstart.gin
  lmlab train experiments/quickstart.gin --set 'gpt.layers = 6' --run runs/deeper

Exit codes: 0 finished; 2 configuration; 3 data; 4 checkpoint; 5 not finite; 6 run folder; 7 another process
is gone; 8 out of memory; 75 interrupted, state saved.
"""

from __future__ import annotations

import argparse
import sys

from lmlab.cli import configuration
from lmlab.errors import Interrupted
from lmlab.parallel.memory import keep_memory
from lmlab.training.signals import StopRequested, StopSignals, leave


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    configuration.add_arguments(parser)
    group = parser.add_argument_group("run folder")
    group.add_argument("--run", metavar="DIR", help="the run folder (default: runs/ and the first gin file's name)")
    group.add_argument("--fresh", action="store_true", help="begin anew; an old run is kept under another name")
    group.add_argument(
        "--from-step", type=int, metavar="N", help="go on from this checkpoint; later ones are set aside"
    )
    group = parser.add_argument_group("several processes (default: what the cluster's environment says, or one)")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--process-id", type=int, metavar="I", help="which process this is, from 0")
    group.add_argument("--num-processes", type=int, metavar="N", help="how many there are")


def run(args: argparse.Namespace) -> int:
    """Trains; the signals are listened to before anything slow is imported."""
    keep_memory()
    with StopSignals() as stop:
        try:
            _train(args, stop)
        except StopRequested:
            raise Interrupted("stopped before the run began.") from None
        except Interrupted as error:
            if not stop.abandoned:
                raise
            print(f"lmlab: {error}", file=sys.stderr)
            leave(error.exit_code)
    return 0


def _train(args: argparse.Namespace, stop: StopSignals) -> None:
    with stop.interruptible():
        resolved = configuration.resolve_arguments(args)
        from lmlab.parallel.processes import among_peers, connect  # from here on jax is needed
        from lmlab.training.compilation_cache import use_compilation_cache
        from lmlab.training.loop import train

        connect(args.coordinator, args.process_id, args.num_processes)
        stop.listen_again()
        use_compilation_cache()
    with among_peers():
        train(resolved, args.run, fresh=args.fresh, from_step=args.from_step, stop=stop)
