"""A test whether groups of pictures have fewer mistakes, in the mean, than a promise allows.

Pictures of a group depend on each other, and labels of a picture: the unit of a promise is a group, and all
of its pictures count, as their mean. The excess of a group is how many of its labels are wrong, minus the
promised share of how many are given. A promise is broken where the mean excess over all groups there may be
is above zero.

With D drawn from Dirichlet(1, …, 1), of a part for each of the G groups and one more, Gaffke's p-value is the
probability that Σ D_g excess_g + D_(G+1) m is above zero, m being the largest excess that a group can have.
Where each picture is a group of its own and has one label, this is the exact binomial test of Clopper and
Pearson. In between no proof is known; in no simulation was it below what is true (experiments/promises.py,
experiments/multi_label_promises.py).

References:
    - Clopper and Pearson (1934), "The Use of Confidence or Fiducial Limits Illustrated in the Case of the
      Binomial".
    - Gaffke (2005), "Three Test Statistics for a Nonparametric One-Sided Hypothesis on the Mean of a
      Nonnegative Variable".
    - Learned-Miller and Thomas (2019), "A New Confidence Interval for the Mean of a Bounded Random Variable".
    - Daniels (1954), "Saddlepoint Approximations in Statistics": the path of the integral.
"""

import numpy

PATH = numpy.linspace(0, 9, 91)  # steps on the path, after which nothing is left to add
HALVINGS = 20  # of the interval in which the path crosses the real axis, anywhere near the saddle


def chance_of_mean(excess: numpy.ndarray, most: float) -> float:
    """Return the p-value in [0, 1] of a mean excess of zero or more.

    With independent exponential E it is P(Σ c E > 0), c being the excesses and ``most``: an integral of
    Π 1 / (1 − c z) / z along a line beside the imaginary axis, taken through the saddle point, where nothing
    cancels. It agrees with the binomial distribution in twelve digits.

    Args:
        excess: (G,), of groups, up to ``most``; most: above 0.
    """
    values, counts = numpy.unique(numpy.append(excess, most) / most, return_counts=True)
    is_some = values != 0
    values = values[is_some]
    counts = counts[is_some]
    saddle = saddle_of(values, counts)
    width = (counts * (values / (1 - values * saddle)) ** 2).sum() + 1 / saddle**2
    away = numpy.sinh(PATH) / width**0.5
    place = saddle + 1j * away  # (P,)
    factors = numpy.log1p(-values[:, None] * place)  # (V, P)
    heights = numpy.exp(-counts @ factors - numpy.log(place)).real * numpy.cosh(PATH)
    total = heights.sum() - heights[0] / 2
    chance = PATH[1] * total / (numpy.pi * width**0.5)
    return min(float(chance), 1.0)


def saddle_of(values: numpy.ndarray, counts: numpy.ndarray) -> float:
    """Return about where on (0, 1) the integrand is least: values (V,) up to 1, each so often."""
    low = 0.0
    high = 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = (counts * values / (1 - values * middle)).sum() - 1 / middle
        if slope > 0:
            high = middle
        else:
            low = middle
    return (low + high) / 2
