"""matplotlib 3.11 and seaborn 0.13."""

from __future__ import annotations

from d2c_mlops.convert.api_changes.change import ApiChange
from d2c_mlops.convert.source.finding import Severity
from d2c_mlops.convert.source.scopes import split_words

_PLOT = "import matplotlib.pyplot as plt\n"
_SEABORN = "import seaborn as sns\n"
STYLES: dict[str, str | None] = {"seaborn": "seaborn-v0_8"}
STYLES |= {
    f"seaborn-{name}": f"seaborn-v0_8-{name}"
    for name in split_words(
        "bright colorblind dark dark-palette darkgrid deep muted notebook paper pastel poster talk "
        "ticks white whitegrid"
    )
}


def _removed_api(path: str, since_version: str, replacement: str, example: str, *, to: str = "") -> ApiChange:
    return ApiChange("matplotlib", path, since_version, "gone", replacement, example, to=to)


def _keyword_change(
    library: str,
    path: str,
    argument: str,
    since_version: str,
    replacement: str,
    example: str,
    *,
    to: str = "",
    droppable: tuple[object, ...] = (),
    severity: Severity = "error",
) -> ApiChange:
    return ApiChange(
        library,
        path,
        since_version,
        "keyword",
        replacement,
        example,
        argument=argument,
        to=to,
        droppable=droppable,
        severity=severity,
    )


CHANGES: tuple[ApiChange, ...] = (
    *(
        ApiChange(
            "matplotlib",
            path,
            "3.8",
            "value",
            "the same name with v0_8: seaborn-v0_8-whitegrid",
            f"{start}{call}('seaborn')",
            position=0,
            argument="style",
            values=STYLES,
        )
        for path, start, call in (
            ("matplotlib.pyplot.style.use", _PLOT, "plt.style.use"),
            ("matplotlib.style.use", "import matplotlib\n", "matplotlib.style.use"),
            ("matplotlib.pyplot.style.context", _PLOT, "plt.style.context"),
        )
    ),
    _removed_api(
        "matplotlib.cm.get_cmap",
        "3.9",
        "plt.get_cmap, or matplotlib.colormaps[name]",
        "import matplotlib.cm as cm\nx = cm.get_cmap('jet')",
        to="matplotlib.pyplot.get_cmap",
    ),
    _removed_api(
        "matplotlib.pyplot.cm.get_cmap",
        "3.9",
        "plt.get_cmap",
        f"{_PLOT}x = plt.cm.get_cmap('jet')",
        to="matplotlib.pyplot.get_cmap",
    ),
    _removed_api(
        "matplotlib.cm.register_cmap",
        "3.9",
        "matplotlib.colormaps.register",
        "import matplotlib.cm as cm\nx = cm.register_cmap(c)",
    ),
    _removed_api(
        "matplotlib.mlab.normpdf",
        "3.1",
        "scipy.stats.norm.pdf",
        "from matplotlib.mlab import normpdf",
        to="scipy.stats.norm.pdf",
    ),
    _removed_api("matplotlib.finance", "2.2", "the package mplfinance", "import matplotlib.finance"),
    _removed_api(
        "matplotlib.pyplot.hold", "3.0", "nothing: new plots are always added to the axes", f"{_PLOT}plt.hold(True)"
    ),
    _removed_api(
        "matplotlib.pyplot.plot_date", "3.11", "plt.plot, which supports dates", f"{_PLOT}plt.plot_date(x, y)"
    ),
    _removed_api(
        "matplotlib.dates.epoch2num",
        "3.8",
        "matplotlib.dates.date2num",
        "from matplotlib.dates import epoch2num",
    ),
    _keyword_change(
        "matplotlib",
        "matplotlib.pyplot.hist",
        "normed",
        "3.1",
        "density=",
        f"{_PLOT}plt.hist(x, normed=True)",
        to="density",
    ),
    _keyword_change(
        "matplotlib",
        "matplotlib.axes.Axes.hist",
        "normed",
        "3.1",
        "density=",
        f"{_PLOT}ax = plt.gca()\nax.hist(x, normed=True)",
        to="density",
    ),
    _keyword_change(
        "matplotlib",
        "matplotlib.pyplot.boxplot",
        "labels",
        "3.11",
        "tick_labels=",
        f"{_PLOT}plt.boxplot(x, labels=['a'])",
        to="tick_labels",
    ),
    _keyword_change(
        "matplotlib",
        "matplotlib.axes.Axes.boxplot",
        "labels",
        "3.11",
        "tick_labels=",
        f"{_PLOT}ax = plt.gca()\nax.boxplot(x, labels=['a'])",
        to="tick_labels",
    ),
    _keyword_change(
        "matplotlib",
        "matplotlib.pyplot.stem",
        "use_line_collection",
        "3.8",
        "nothing",
        f"{_PLOT}plt.stem(x, use_line_collection=True)",
        droppable=(True,),
    ),
    _keyword_change(
        "matplotlib",
        "matplotlib.pyplot.grid",
        "b",
        "3.6",
        "visible=",
        f"{_PLOT}plt.grid(b=True)",
        to="visible",
    ),
    _keyword_change(
        "matplotlib",
        "matplotlib.axes.Axes.grid",
        "b",
        "3.6",
        "visible=",
        f"{_PLOT}ax = plt.gca()\nax.grid(b=True)",
        to="visible",
    ),
    _keyword_change(
        "matplotlib",
        "matplotlib.pyplot.annotate",
        "s",
        "3.3",
        "text=",
        f"{_PLOT}plt.annotate(s='a', xy=(1, 1))",
        to="text",
    ),
    _keyword_change(
        "matplotlib",
        "matplotlib.axes.Axes.annotate",
        "s",
        "3.3",
        "text=",
        f"{_PLOT}ax = plt.gca()\nax.annotate(s='a', xy=(1, 1))",
        to="text",
    ),
    _keyword_change(
        "matplotlib",
        "matplotlib.figure.Figure.gca",
        "projection",
        "3.7",
        "fig.add_subplot(projection=...)",
        f"{_PLOT}fig = plt.figure()\nfig.gca(projection='3d')",
    ),
    ApiChange(
        "seaborn",
        "seaborn.factorplot",
        "0.11",
        "gone",
        "catplot(kind='point')",
        f"{_SEABORN}sns.factorplot(x='a', y='b', data=df)",
    ),
    ApiChange(
        "seaborn",
        "seaborn.distplot",
        "0.11",
        "behaviour",
        "histplot(x, kde=True, stat='density') for an axes, displot for a figure: distplot is deprecated",
        f"{_SEABORN}sns.distplot(x)",
        severity="warning",
    ),
    ApiChange("seaborn", "seaborn.tsplot", "0.11", "gone", "lineplot", f"{_SEABORN}sns.tsplot(x)"),
    *(
        ApiChange(
            "seaborn",
            f"seaborn.{name}",
            "0.13",
            "positional",
            "name them: x=, y=, data=",
            f"{_SEABORN}sns.{name}(a, b)",
            position=1,
        )
        for name in split_words(
            "barplot boxplot boxenplot catplot countplot kdeplot lineplot lmplot pointplot regplot relplot "
            "residplot scatterplot stripplot swarmplot violinplot jointplot"
        )
    ),
    *(
        _keyword_change(
            "seaborn",
            f"seaborn.{name}",
            "size",
            "0.11",
            "height=",
            f"{_SEABORN}sns.{name}(df, size=3)",
            to="height",
        )
        for name in ("pairplot", "FacetGrid", "PairGrid", "jointplot", "lmplot", "catplot")
    ),
    _keyword_change(
        "seaborn",
        "seaborn.kdeplot",
        "shade",
        "0.11",
        "fill=",
        f"{_SEABORN}sns.kdeplot(x, shade=True)",
        to="fill",
        severity="warning",
    ),
    _keyword_change(
        "seaborn",
        "seaborn.kdeplot",
        "bw",
        "0.14",
        "bw_method= or bw_adjust=",
        f"{_SEABORN}sns.kdeplot(x, bw=1)",
        severity="warning",
    ),
)
