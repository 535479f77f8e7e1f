"""Who may work on a trial: one process, whoever looks on."""

import fcntl
import threading

from lmlab.sweeps.folder import PAUSE, SweepFolder


def test_a_trial_is_of_one_at_a_time_and_who_only_looks_keeps_nobody_from_it(tmp_path):
    folder = SweepFolder(tmp_path)
    (tmp_path / "trials" / "one").mkdir(parents=True)
    with folder.claimed("one") as mine, folder.claimed("one") as theirs:
        assert mine and not theirs
    with (tmp_path / "trials" / "one" / ".trial.lock").open() as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        threading.Timer(2 * PAUSE, fcntl.flock, (look, fcntl.LOCK_UN)).start()
        with folder.claimed("one") as mine:
            assert mine
