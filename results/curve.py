"""The few-shot curve: accuracy against shots, one line a trainer and config, one PNG a data set."""
import os
import statistics

from trainers.checkpoint import write_atomically


def draw_curves(table, folder):
    """Draws the few-shot table (see ``results.table``), mean ± sample standard deviation, shots on a logarithmic axis.

    Returns:
        paths of the files ``curve_<data set>.png`` in ``folder``.
    """
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    paths = []
    for data in dict.fromkeys(row.key[0] for row in table.rows):
        figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
        for row in table.rows:
            if row.key[0] == data:
                figures = table.figures(row)
                means = [statistics.mean(figures[shots]) for shots in table.columns]
                deviations = [statistics.stdev(figures[shots]) if len(figures[shots]) > 1 else 0 for shots in table.columns]
                axes.errorbar(table.columns, means, deviations, marker="o", capsize=3, label=" ".join(row.key[2:]))
        axes.set_xscale("log", base=2)
        axes.set_xticks(table.columns, map(str, table.columns))
        axes.set(xlabel="training images a class", ylabel="accuracy in % on all classes", title=data)
        axes.grid(alpha=0.3)
        axes.legend()
        path = os.path.join(folder, f"curve_{data.replace(' ', '_')}.png")
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
        pyplot.close(figure)
        paths.append(path)
    return paths
