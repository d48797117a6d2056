"""What was compared, as JSON, as tables and as a chart.

    python -m benchmarks.report

writes the tables and the chart of docs/performance.md anew from benchmarks/results/.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.contender import label
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/performance.md"
CHART = ROOT / "docs/images/beside-others.svg"
BEGIN = "<!-- written by `make bench PEERS=1`: begin -->"
END = "<!-- written by `make bench PEERS=1`: end -->"
RATIO = "Jobsite ÷ it"

Result = Mapping[str, Any]
Run = Mapping[str, Any]


def summary(
    runs: Sequence[Run], jobsite: Sequence[Run] | None
) -> dict[str, dict[str, Any]]:
    """Each figure over all rounds, and what Jobsite's is in proportion, in the same round."""
    figures = {}
    for name in runs[0]["figures"]:
        values = [run["figures"][name] for run in runs]
        figures[name] = {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
            "values": values,
        }
        if jobsite and name in jobsite[0]["figures"] and all(values):
            figures[name]["jobsite"] = statistics.median(
                ours["figures"][name] / value
                for ours, value in zip(jobsite, values, strict=True)
            )
    return figures


def save(name: str, result: Result) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def results() -> dict[str, Result]:
    """What was saved last of each workload."""
    return {
        name: json.loads(path.read_text())
        for name in WORKLOADS
        if (path := RESULTS / f"{name}.json").exists()
    }


def publish() -> None:
    saved = results()
    PAGE.write_text(put(PAGE.read_text(), tables(saved)))
    CHART.write_text(chart(saved))


def put(page: str, text: str) -> str:
    """The page with this between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def tables(results: Mapping[str, Result]) -> str:
    parts = []
    for name, result in results.items():
        machine = ", ".join(
            each if what in ("CPU", "system") else f"{what} {each}"
            for what, each in result["machine"].items()
        )
        parts.append(f"#### {WORKLOADS[name].title}\n")
        parts.append(table(result))
        parts.append(
            f"{result['measured']}, rounds: {result['rounds']}, median (least to most). {machine}.\n"
        )
    releases = {
        f"{package} {version}"
        for result in results.values()
        for contender in result["contenders"].values()
        for package, version in contender["versions"].items()
    }
    parts.append(f"Releases: {', '.join(sorted(releases, key=str.lower))}.\n")
    return "\n".join(parts)


def table(result: Result) -> str:
    contenders = result["contenders"]
    figures = list(dict.fromkeys(f for c in contenders.values() for f in c["figures"]))
    head = ["", *(cell for figure in figures for cell in (figure, RATIO))]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for name in ranked(contenders):
        row = [f"**{label(name)}**" if name == "jobsite" else label(name)]
        for figure in figures:
            row += cells(name, contenders[name]["figures"].get(figure))
        rows.append(row)
    # A column without a ratio says nothing.
    kept = [i for i in range(len(head)) if i == 0 or any(r[i] for r in rows[2:])]
    return "".join(f"| {' | '.join(row[i] for i in kept)} |\n" for row in rows)


def cells(name: str, figure: Mapping[str, float] | None) -> tuple[str, str]:
    if figure is None:
        return "", ""
    low, middle, high = (number(figure[key]) for key in ("min", "median", "max"))
    spread = f" ({low} to {high})" if low != high else ""
    return f"{middle}{spread}", proportion(name, figure)


def proportion(name: str, figure: Mapping[str, float]) -> str:
    """What Jobsite's figure is, as a multiple of this one."""
    if name == "jobsite" or "jobsite" not in figure:
        return ""
    ratio = figure["jobsite"]
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2f}"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def ranked(contenders: Mapping[str, Any]) -> list[str]:
    """The best first, by the first figure."""

    def rank(name: str) -> float:
        figure, values = next(iter(contenders[name]["figures"].items()))
        median: float = values["median"]
        return -median if is_rate(figure) else median

    return sorted(contenders, key=rank)


def is_rate(figure: str) -> bool:
    """Else a time, and less is better."""
    return figure.endswith("/s")


# The chart: a panel for each workload, a bar for each contender.
WIDTH, LABELS, BARS = 760, 240, 330
ROW, BAR, TITLE, GAP, MARGIN = 22, 14, 30, 18, 20
RIGHT = WIDTH - MARGIN

# An opaque ground: it is read on a light page and on a dark one, whichever colours the
# browser prefers.
STYLE = """
  .ground { fill: #ffffff; stroke: #d0d7de }
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .bar { fill: #9aa5b1 } .jobsite { fill: #1a7f4b }
  .spread { stroke: #1f2328; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #151b23; stroke: #3d444d }
    text { fill: #e6edf3 }
    .bar { fill: #6b7683 } .jobsite { fill: #3fb96f }
    .spread { stroke: #e6edf3 }
  }
"""


def chart(results: Mapping[str, Result]) -> str:
    """An SVG: the first figure of each workload, with its spread."""
    marks: list[str] = []
    top = MARGIN
    for name, result in results.items():
        figure = next(iter(result["contenders"]["jobsite"]["figures"]))
        title = f"{WORKLOADS[name].title}: {figure}"
        if not is_rate(figure):
            title += " (less is better)"
        marks += [
            f'<text class="title" x="{MARGIN}" y="{top + 16}">{plain(title)}</text>',
            f'<text x="{RIGHT}" y="{top + 16}" text-anchor="end">{RATIO}</text>',
        ]
        top += TITLE
        most = max(
            contender["figures"][figure]["max"]
            for contender in result["contenders"].values()
        )
        for contender in ranked(result["contenders"]):
            values = result["contenders"][contender]["figures"][figure]
            marks += bar(contender, values, BARS / most, top)
            top += ROW
        top += GAP
    height = top - GAP + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" height="{height}" role="img"'
            ' aria-label="Jobsite beside other job managers">',
            f"<style>{STYLE}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}"'
            f' height="{height - 1}" rx="8"/>',
            *marks,
            "</svg>\n",
        ]
    )


def bar(
    contender: str, values: Mapping[str, float], scale: float, top: int
) -> list[str]:
    kind = "bar jobsite" if contender.startswith("jobsite") else "bar"
    left, middle = MARGIN + LABELS, top + ROW / 2
    low, median, high = (
        round(values[key] * scale, 1) for key in ("min", "median", "max")
    )
    return [
        f'<text x="{left - 8}" y="{middle + 4.5}" text-anchor="end">'
        f"{plain(label(contender))}</text>",
        f'<rect class="{kind}" x="{left}" y="{middle - BAR / 2}"'
        f' width="{max(median, 1)}" height="{BAR}" rx="2"/>',
        f'<path class="spread" d="M{left + low} {middle}H{left + high}"/>',
        f'<text x="{left + high + 8}" y="{middle + 4.5}">{number(values["median"])}</text>',
        f'<text x="{RIGHT}" y="{middle + 4.5}" text-anchor="end">'
        f"{proportion(contender, values)}</text>",
    ]


def plain(markdown: str) -> str:
    """As text in XML."""
    return escape(markdown.replace("`", ""))


if __name__ == "__main__":
    publish()
