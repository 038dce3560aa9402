"""Whether trainers differ over data sets by more than noise.

The unit is the data set: seeds and folds of one are averaged first, since a claim about a method is
one about further data sets. Intervals are Student's t over the data sets' differences; of fewer
than ``FEWEST_DATA_SETS`` there is none. Which differences are judged, and over which both tests' p are
corrected, is fixed before any number is seen (``ProtocolScores.judged``).
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations

import numpy
from matplotlib import rc_context
from matplotlib.figure import Figure
from pandas import DataFrame, Series, concat
from scipy import stats

from trainers.common.console import counted
from trainers.common.errors import UserError

from .holm import ALPHA, by_holm, holm_over
from .rows import CONFIDENCE_LEVEL
from .svg import STYLE, svg_of

FEWEST_DATA_SETS = 5  # data sets: with four, t's interval is 3.2 standard errors wide to each side
POWER = 0.8  # the chance to show a difference that is there: four times in five
MOST_DATA_SETS = 1000  # data sets: a larger number says no more than "no number that anyone has"
RESAMPLES = 9999
DATA = "data set"
OF_TRAINED = ("base", "H")  # measures that are of the trained classes, at least in part
PRIMARY = "H"  # the measure that verdicts are of, wherever a table has it


@cache
def effect_shown_by(number: int) -> float:
    """Return the mean difference, in standard deviations, that this many data sets show with the
    probability ``POWER``."""
    from statsmodels.stats.power import TTestPower  # here, since it takes a second

    return float(TTestPower().solve_power(nobs=number, alpha=1 - CONFIDENCE_LEVEL, power=POWER))


def with_minus_signs(text: str) -> str:
    """A text with minus signs before its numbers."""
    return re.sub(r"-(?=\d)", "−", text)


def powerless_over(least: float, data_sets: int, family: int) -> str:
    """Return the sentence that Wilcoxon's test can show nothing here; empty where it can.

    Args:
        least: the smallest p that it has over so many data sets (``Difference.wilcoxon_floor``).
        family: over how many differences it is corrected.
    """
    if least * family < ALPHA or math.isnan(least):
        return ""
    corrected = f", {min(1.0, least * family):.2g}{holm_over(family)}" if family > 1 else ""
    return (
        f"Wilcoxon's test can show nothing here: its smallest p over {counted(data_sets, DATA)} is {least:.2g}"
        f"{corrected}."
    )


@dataclass(frozen=True, eq=False)
class Difference:
    """Paired differences over data sets, in the units of the compared measure.

    Attributes:
        of: by data set, the mean over seeds; errors: its standard errors over seeds, NaN of one.

    Raises:
        UserError: there are fewer than ``FEWEST_DATA_SETS``.
    """

    of: Series
    errors: Series

    def __post_init__(self) -> None:
        if len(self.of) < FEWEST_DATA_SETS:
            raise UserError(
                f"{counted(len(self.of), 'data set')} in common say nothing of further ones: "
                f"compare over at least {FEWEST_DATA_SETS}"
            )

    @classmethod
    def between(cls, first: Series, second: Series) -> "Difference":
        """Return first minus second, seed by seed; of means for a data set without a common seed.

        Args:
            first, second: values by data set and seed.
        """
        by_seed = (first - second).dropna().groupby(level=DATA)
        of_means = first.groupby(level=DATA).mean() - second.groupby(level=DATA).mean()
        of = by_seed.mean().combine_first(of_means.dropna())
        return cls(of, by_seed.sem().reindex(of.index))

    @property
    def mean(self) -> float:
        return float(self.of.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The ends of the 95 % interval of the mean, by Student's t."""
        half = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, len(self.of) - 1) * self.of.sem()
        return self.mean - half, self.mean + half

    @cached_property
    def bootstrap(self) -> tuple[float, float]:
        """The ends by the bias-corrected and accelerated bootstrap (Efron, 1987): where they are far
        from ``interval``'s, a few data sets make the difference. NaN where all differences are equal.
        """
        if self.of.nunique() == 1:
            return math.nan, math.nan
        drawn = stats.bootstrap(
            (self.of,),
            numpy.mean,
            method="BCa",
            n_resamples=RESAMPLES,
            random_state=numpy.random.default_rng(0),
        ).confidence_interval
        return float(drawn.low), float(drawn.high)

    @property
    def bootstrap_in_words(self) -> str:
        """The ends that ``bootstrap`` gives; where all differences are equal, their value."""
        low, high = self.bootstrap
        return with_minus_signs(
            f"{self.mean:+.2f}, all equal" if math.isnan(low) else f"{low:+.2f} … {high:+.2f}"
        )

    @cached_property
    def student(self) -> float:
        """p of Student's t, whose interval is ``interval``; 1 where all differences are 0."""
        error = self.of.sem()
        if not error:
            return 0.0 if self.mean else 1.0
        return float(2 * stats.t.sf(abs(self.mean) / error, len(self.of) - 1))

    @cached_property
    def wilcoxon(self) -> float:
        """p of Wilcoxon's signed-rank test; NaN where all differences are 0."""
        return float(stats.wilcoxon(self.of).pvalue) if self.of.any() else math.nan

    @cached_property
    def wilcoxon_floor(self) -> float:
        """The least p that Wilcoxon's test has for as many data sets: of differences as large as these,
        all of one sign; NaN where all are 0."""
        return float(stats.wilcoxon(self.of.abs()).pvalue) if self.of.any() else math.nan

    @property
    def is_real(self) -> bool:
        """Whether the interval is on one side of 0; one among several is judged by ``verdict``."""
        low, high = self.interval
        return low > 0 or high < 0

    @cached_property
    def deciding_data_sets(self) -> int | None:
        """Return the number of data sets like these that would show a difference as large as the mean with a chance of
        ``POWER``; None: more than ``MOST_DATA_SETS``."""
        deviation = self.of.std()
        if not self.mean or abs(self.mean) < effect_shown_by(MOST_DATA_SETS) * deviation:
            return None
        if abs(self.mean) >= effect_shown_by(FEWEST_DATA_SETS) * deviation:
            return FEWEST_DATA_SETS
        from statsmodels.stats.power import TTestPower  # here, since it takes a second

        effect = abs(self.mean) / deviation
        number = TTestPower().solve_power(
            effect_size=effect, alpha=1 - CONFIDENCE_LEVEL, power=POWER
        )
        return math.ceil(float(number))

    @cached_property
    def noise_of_seeds(self) -> float:
        """Share of the variance over data sets that the seeds make, up to 1; NaN where there is one
        seed."""
        if not self.of.var() or self.errors.isna().all():
            return math.nan
        return min(1.0, float((self.errors**2).mean() / self.of.var()))

    @cached_property
    def deciding_seeds(self) -> float | None:
        """Return how many times as many seeds on the same data sets would show it as surely;
        None: no number would, or it is unknown."""
        if math.isnan(self.noise_of_seeds):
            return None
        of_seeds = self.noise_of_seeds * self.of.var()
        between = self.of.var() - of_seeds
        allowed = (self.mean / effect_shown_by(len(self.of))) ** 2 - between
        return float(of_seeds / allowed) if allowed > 0 else None

    def __str__(self) -> str:
        """``+0.57 (−0.65 … +1.79)``."""
        low, high = self.interval
        return with_minus_signs(f"{self.mean:+.2f} ({low:+.2f} … {high:+.2f})")

    def verdict(self, first: str, second: str, among: Sequence["Difference"] = ()) -> str:
        """Say whether the difference is real by Student's t, how much more would decide it, and whether Wilcoxon's
        test, where it could show anything, says otherwise.

        Args:
            among: the differences of its family, itself one of them, over which both tests' p are
                corrected by Holm; none: it stands alone.
        """
        family = list(among) or [self]
        place = next(place for place, other in enumerate(family) if other is self)
        student = by_holm([other.student for other in family])[place]
        wilcoxon = by_holm([other.wilcoxon for other in family])[place]
        text = self.sentences(first, second, student, len(family))
        can_answer = self.wilcoxon_floor * len(family) < ALPHA
        if can_answer and (wilcoxon < ALPHA) != (student < ALPHA):
            other = "shows it" if wilcoxon < ALPHA else "does not show it"
            text += f" Wilcoxon's test {other} (p {wilcoxon:.2g}{holm_over(len(family))})."
        return text

    def sentences(self, first: str, second: str, student: float, family: int) -> str:
        """Two sentences: whether the difference is real, and how much more would decide it.

        Args:
            student: Student's p by Holm; family: over as many differences.
        """
        low, high = self.interval
        ends = (
            f"95 % interval {low:+.2f} … {high:+.2f} over {counted(len(self.of), DATA)}; Student's t, "
            f"p {student:.2g}{holm_over(family)}"
        )
        number = self.deciding_data_sets
        enough = f"more than {MOST_DATA_SETS:,}" if number is None else f"{number:,}"
        if student < ALPHA:
            side = "above" if self.mean > 0 else "below"
            return with_minus_signs(
                f"The difference is real: {first} is {side} {second} by {abs(self.mean):.2f} ({ends}). "
                f"{enough.capitalize()} such data sets would show one of this size four times in five."
            )
        text = with_minus_signs(
            f"A difference is not shown: {first} minus {second} is {self.mean:+.2f} ({ends})."
        )
        if self.is_real:
            return f"{text} Its interval alone leaves out 0, as chance lets one of many do."
        text += f" If that is the true difference, {enough} such data sets would decide it"
        if self.deciding_seeds:
            return f"{text}, or {self.deciding_seeds:.1f} times as many seeds on these."
        if math.isnan(self.noise_of_seeds):
            return f"{text}; what more seeds would do is not known."
        return (
            f"{text}; more seeds on these would not: they make {self.noise_of_seeds:.0%} of its "
            "variance."
        )


@dataclass(frozen=True)
class ProtocolScores:
    """The trainers' scores on data sets under one protocol.

    Attributes:
        title: the protocol.
        frame: a column for each measure, its index ``trainer``, ``data set`` and ``seed``.
        marked: trainers with a part for the trained classes alone.
    """

    title: str
    frame: DataFrame
    marked: frozenset[str] = frozenset()

    @property
    def judged(self) -> list[str]:
        """The measures that verdicts are of: ``PRIMARY`` alone where there is one, else all.

        The differences in them are one family, over which p is corrected. The other measures have
        intervals and no verdict.
        """
        return [PRIMARY] if PRIMARY in self.measures else self.measures

    @property
    def trainers(self) -> list[str]:
        return list(self.frame.index.get_level_values("trainer").unique())

    @property
    def measures(self) -> list[str]:
        return list(self.frame.columns)

    def join(self, other: "ProtocolScores") -> "ProtocolScores":
        """Return these scores and other ones under the same protocol as one."""
        return ProtocolScores(
            self.title, concat([self.frame, other.frame]), self.marked | other.marked
        )

    def of(self, trainers: Iterable[str]) -> "ProtocolScores":
        """The scores of some trainers, in their order."""
        names = list(trainers)
        return ProtocolScores(self.title, self.frame.loc[names], self.marked & {*names})

    def may_compare(self, trainers: Iterable[str], measure: str) -> bool:
        """Whether all of them do the same task in a measure: on trained classes, a trainer that keeps a
        classifier of these is compared with its like only."""
        are_marked = {name in self.marked for name in trainers}
        return measure not in OF_TRAINED or len(are_marked) == 1

    def difference(self, first: str, second: str, measure: str) -> Difference:
        """Return the difference, first minus second.

        Raises:
            UserError: as ``Difference``.
        """
        values = self.frame[measure]
        return Difference.between(values[first], values[second])


@dataclass(frozen=True)
class Ranking:
    """Many trainers over the data sets that all of them have.

    Attributes:
        scores: (data sets, trainers), means over seeds.
    """

    scores: DataFrame

    @classmethod
    def of(cls, values: Series) -> "Ranking":
        """Make a ranking out of values by trainer, data set and seed.

        Raises:
            UserError: there are fewer than ``FEWEST_DATA_SETS`` data sets or three trainers.
        """
        table = values.groupby(level=["trainer", DATA], sort=False).mean().unstack("trainer")
        table = table.dropna()
        if len(table) < FEWEST_DATA_SETS or table.shape[1] < 3:
            raise UserError(
                f"{counted(table.shape[1], 'trainer')} on {counted(len(table), DATA)} that all have: "
                f"ranks take three trainers and {FEWEST_DATA_SETS} data sets"
            )
        return cls(table)

    @property
    def ranks(self) -> Series:
        """The mean rank of each trainer, the best first: 1 is the highest value."""
        return self.scores.rank(axis=1, ascending=False).mean().sort_values()

    @property
    def friedman(self) -> float:
        """p of Friedman's test that all trainers are alike."""
        if (self.scores.nunique(axis=1) == 1).all():  # level everywhere, where it divides by zero
            return 1.0
        return float(stats.friedmanchisquare(*self.scores.to_numpy().T).pvalue)

    @cached_property
    def nemenyi(self) -> DataFrame:
        """p of Nemenyi's test for each pair (Demšar, 2006)."""
        from scikit_posthocs import posthoc_nemenyi_friedman  # here, since it takes a second

        return posthoc_nemenyi_friedman(self.scores)

    @property
    def disagreements(self) -> list[str]:
        """Say where the tests disagree: pairs that only one of Wilcoxon's and Nemenyi's tests tells
        apart, and pairs told apart where Friedman's test tells nothing apart."""
        pairs = [*combinations(self.ranks.index, 2)]
        told = {}
        for test, p in (("Wilcoxon's", self.wilcoxon), ("Nemenyi's", self.nemenyi)):
            told[test] = [pair for pair in pairs if p.loc[pair] < ALPHA]
        texts = []
        least = float(stats.wilcoxon(numpy.arange(len(self.scores)) + 1).pvalue)
        if powerless := powerless_over(least, len(self.scores), len(pairs)):
            texts.append(powerless)
            told["Wilcoxon's"] = told["Nemenyi's"]  # it contradicts nothing
        for test, other in (("Wilcoxon's", "Nemenyi's"), ("Nemenyi's", "Wilcoxon's")):
            alone = [" and ".join(pair) for pair in told[test] if pair not in told[other]]
            if alone:
                texts.append(f"{test} test alone tells apart {', '.join(alone)}.")
        if self.friedman >= ALPHA and any(told.values()):
            texts.append("Friedman's test does not tell the trainers apart.")
        return texts

    @cached_property
    def wilcoxon(self) -> DataFrame:
        """p of Wilcoxon's test for each pair, by Holm's correction for all pairs."""
        from scikit_posthocs import posthoc_wilcoxon  # here, since it takes a second

        names = self.scores.columns
        with numpy.errstate(invalid="ignore"):  # of two that are level everywhere: their p is 1
            values = posthoc_wilcoxon(self.scores.to_numpy().T, p_adjust="holm")
        return DataFrame(values.to_numpy(), names, names)

    def draw(self, title: str) -> str:
        """The critical-difference picture as SVG: a bar joins trainers that Nemenyi's test does not
        tell apart."""
        from scikit_posthocs import critical_difference_diagram  # here, since it takes a second

        # letters as text
        with rc_context({**STYLE, "svg.fonttype": "none", "font.size": 10}):
            size = (8, 1.5 + self.scores.shape[1] / 5)
            figure = Figure(figsize=size, layout="constrained")
            axes = figure.subplots()
            critical_difference_diagram(self.ranks, self.nemenyi, ax=axes)
            axes.set_title(f"{title}: mean ranks over {len(self.scores)} data sets")
            return svg_of(figure)
