"""A study of Optuna's in the folder of a sweep: settings proposed, and what came of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmlab.errors import ConfigError, RunFolderError
from lmlab.sweeps.direction import better
from lmlab.sweeps.folder import SweepFolder
from lmlab.sweeps.records import curve, final_numbers, read_records
from lmlab.sweeps.search import Optuna
from lmlab.sweeps.space import Settings, Sweep, range_of, without_the_unfit

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

NAME = "sweep"


class Study:
    """What was proposed so far, and what is next.

    Args:
      folder: of the sweep, written.
      sweep: the axes.
      search: how it is searched.

    Raises:
      ConfigError: Optuna is not installed, or the axes are not those that the study was begun with.
    """

    def __init__(self, folder: SweepFolder, sweep: Sweep, search: Optuna) -> None:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError:
            raise ConfigError("a search needs Optuna: pip install 'lmlab[optuna]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna: Any = optuna
        self._folder, self._sweep, self._search = folder, sweep, search
        self._distributions = {key: self._distribution(key, values) for key, values in sweep.axes.items()}
        journal = folder.path / "optuna.journal"
        try:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(journal))),
                study_name=NAME,
                direction="minimize" if better(search.metric, search.better) == "lower" else "maximize",
                load_if_exists=True,
            )
        except (OSError, ValueError, KeyError) as error:
            raise RunFolderError(f"{journal} is no study of Optuna's: {error}. Begin in another folder.") from error
        for trial in self._study.trials:
            if trial.distributions != self._distributions:
                raise ConfigError(
                    f"{journal} was begun with other axes or values. Begin in another folder (--folder DIR), or put "
                    "the old ones back."
                )

    def settings(self) -> list[Settings]:
        """All that was proposed so far, in order."""
        return [self._setting(trial) for trial in self._study.trials]

    def propose(self) -> bool:
        """Proposes the next settings where those before have been judged; False where all are done."""
        states = [trial.state for trial in self._study.trials]
        if self._optuna.trial.TrialState.RUNNING in states:
            return True
        samplers = self._optuna.samplers
        seed = self._search.seed + len(states)  # a search that goes on proposes what it would have proposed
        liar = {"constant_liar": True} if self._search.sampler == "tpe" else {}
        make = samplers.TPESampler if self._search.sampler == "tpe" else samplers.RandomSampler
        self._study.sampler = make(seed=seed, **liar)
        count = min(self._search.at_a_time, self._search.settings - len(states))
        for _ in range(count):
            self._study.ask(fixed_distributions=self._distributions)
        return count > 0

    def judge(self, trials: Sequence[tuple[Mapping[str, str], str]]) -> int:
        """Tells what came of settings whose trials have all ended; how many these are.

        Args:
          trials: the settings of a trial, as they were proposed, and its id.
        """
        State, told = self._optuna.trial.TrialState, 0
        for frozen in self._study.get_trials(states=(State.RUNNING,)):
            setting = self._setting(frozen)
            records = [self._folder.record(trial) for own, trial in trials if own == setting]
            if not records or any(record is None or not record.ended for record in records):
                continue
            told += 1
            statuses = {record.status for record in records if record}
            if statuses <= {"ok", "pruned"}:
                values = [self._value(record.id) for record in records if record]
                mean = statistics.fmean(value for _, value in values)
                if math.isfinite(mean):
                    pruned = statuses != {"ok"}
                    trial = self._optuna.Trial(self._study, frozen._trial_id)
                    trial.report(mean, max(step for step, _ in values))
                    self._study.tell(frozen.number, mean if not pruned else None, State.PRUNED if pruned else None)
                    continue
            self._study.tell(frozen.number, state=State.FAIL)
        return told

    def _value(self, trial: str) -> tuple[int, float]:
        """The last value of the metric and its step; not a number where it was not measured."""
        records = read_records(self._folder.trial(trial).metrics)
        steps, values = curve(records, self._search.metric)
        if not steps:
            known = ", ".join(final_numbers(records)) or "nothing"
            raise ConfigError(f"optuna.metric = '{self._search.metric}' is not among what trials report: {known}.")
        return steps[-1], values[-1]

    def _setting(self, trial: FrozenTrial) -> Settings:
        written = {}
        for key, values in self._sweep.axes.items():
            found, value = range_of(key, values), trial.params[key]
            written[key] = value if found is None else found.text(value)
        return without_the_unfit(self._sweep, written)

    def _distribution(self, key: str, values: Sequence[str]) -> Any:
        found, kinds = range_of(key, values), self._optuna.distributions
        if found is None:
            return kinds.CategoricalDistribution(list(values))
        if found.kind == "int_uniform":
            return kinds.IntDistribution(int(found.low), int(found.high))
        return kinds.FloatDistribution(found.low, found.high, log=found.kind == "log_uniform")
