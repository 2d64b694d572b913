"""Report of a run, as a page of HTML and as Markdown."""

import base64
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torchvision
from torch import Tensor

from ssd_zoo.data.annotations import number_of
from ssd_zoo.training.logs import Row
from ssd_zoo.training.plan import LEAST_STEPS, Choice
from ssd_zoo.training.plots import precision_curves
from ssd_zoo.training.svg import line_chart
from ssd_zoo.version import __version__
from ssd_zoo.weights.files import write_file

if TYPE_CHECKING:
    from ssd_zoo.training.evaluate import Evaluation

__all__ = ["Picture", "Story", "Table", "failure_of", "tables_of", "to_markdown", "write_report"]

Lines = Mapping[str, Sequence[tuple[float, float]]]
_MAIN, _KINDS = ("AP", "AP50", "AP75"), ("AP", "AR")
_FOUND = "Found and missed, at scores from .5; AP counts all scores"
# A model with a lower AP is of no use.
_LEAST_AP = 0.01
_SIZES = (("small", "up to 32² pixels"), ("medium", "up to 96² pixels"), ("large", "beyond 96² pixels"))


class Table(NamedTuple):
    """A table: its title, names of columns, and rows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """A picture with a caption, under a heading."""

    heading: str
    caption: str
    jpeg: bytes


@dataclass(frozen=True)
class Story:
    """Contents of a report on a training.

    Attributes:
        name: Name of the run.
        choices: What was chosen, and why.
        command: The command to repeat the run; None if it is not known.
        history: One row per epoch.
        device: Device of the training.
        evaluation: The best model's evaluation; None without validation data.
    """

    name: str
    choices: Sequence[Choice]
    command: str | None
    history: Sequence[Row]
    device: torch.device
    evaluation: "Evaluation | None"


def failure_of(story: Story) -> str | None:
    """Return advice if the trained model finds next to nothing, by its AP or at scores from .5.

    None if it finds something, or its AP was not measured.
    """
    if story.evaluation is None or math.isnan(ap := story.evaluation.metrics["AP"]):
        return None
    confusion = story.evaluation.confusion
    blind = confusion is not None and not confusion.diagonal()[1:].any()
    if ap >= _LEAST_AP and not blind:
        return None
    steps = int(story.history[-1]["step"])
    if ap >= _LEAST_AP:
        return (
            f"The model finds no object at scores from .5. Its AP is {ap:.3f}, after {number_of(steps, 'step')}. "
            "Detect with a lower --score-thresh, or train longer."
        )
    text = f"The model finds next to nothing: its AP is {ap:.3f}, after {number_of(steps, 'step')}. "
    if steps < LEAST_STEPS:
        return (
            f"{text}That is too few: train {LEAST_STEPS} or more, by more minutes or epochs. A smaller input is faster."
        )
    return (
        f"{text}The loss should fall (curves.png), and the boxes lie on the objects (ssd-zoo data DATA draws them). If "
        "they do, try another learning rate, or a larger size for small objects."
    )


def tables_of(story: Story) -> list[Table]:
    """Return the facts of a run as tables.

    Results by class and by size, choices, time and versions.
    """
    tables = [] if story.evaluation is None else [*_results(story.evaluation), *_mistakes(story.evaluation)]
    if story.choices:
        tables.append(Table("Choices", ("Setting", "Value", "Reason"), [tuple(choice) for choice in story.choices]))
    return [*tables, Table("Run", ("", ""), _run(story))]


def to_markdown(tables: Sequence[Table], command: str | None) -> str:
    """Return tables and the run's command as Markdown."""
    parts = []
    for title, header, rows in tables:
        lines = [header, ["---"] * len(header), *rows]
        body = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
        parts.append(f"### {title}\n\n{body}")
    if command is not None:
        fence = "`" * 3
        parts.append(f"### Command\n\n{fence}sh\n{command}\n{fence}")
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write_report(file: Path, story: Story, pictures: Sequence[Picture]) -> None:
    """Write the page, atomically. It needs no other file and no script.

    Args:
        file: The file.
        story: What it tells.
        pictures: Pictures, in their order; those with the same heading stand together.
    """
    parts = [f"<h1>{escape(story.name)}</h1>", _lead(story)]
    tables = tables_of(story)
    by_title = {table.title: _table(table) for table in tables}
    shown_first = ("Results by size", "Results by class", _FOUND, "Choices")
    parts += [by_title[title] for title in shown_first if title in by_title]
    parts.append(_section("Curves", f'<div class="row">{_charts(_curves(story.history))}</div>'))
    if story.evaluation is not None:
        curves = {
            name: [(i / 100, value) for i, value in enumerate(precision)]
            for name, precision in precision_curves(story.evaluation).items()
        }
        shown = _charts({"Precision over recall, at an IoU of .5": curves})
        if story.evaluation.confusion is not None:
            shown += _confusion(story.evaluation.confusion, story.evaluation.classes)
        parts.append(_section("Classes", f'<div class="row">{shown}</div>'))
    for heading in dict.fromkeys(picture.heading for picture in pictures):
        shown = "".join(_picture(picture) for picture in pictures if picture.heading == heading)
        # The style sheet shows the pictures of "before and after" in pairs.
        kind = escape(heading.lower())
        parts.append(_section(heading, f'<div class="pictures {kind}">{shown}</div>'))
    parts.append(by_title["Run"])
    if story.command is not None:
        parts.append(_section("Command to repeat", f"<pre>{escape(story.command)}</pre>"))
    title = escape(f"{story.name} – a run of ssd_zoo")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{_STYLE}'
    page = f'<!doctype html>\n<html lang="en"><head>{head}<title>{title}</title></head>\n<body><main>\n'
    write_file(file, (page + "\n".join(parts) + "\n</main></body></html>\n").encode("utf-8", "backslashreplace"))


def _lead(story: Story) -> str:
    figures = [] if story.evaluation is None else [(k, _figure_text(story.evaluation.metrics[k])) for k in _MAIN]
    figures += [("time of training", _duration(_seconds(story.history)))]
    cells = "".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in figures)
    note = "There are no validation data, so AP was not measured." if story.evaluation is None else failure_of(story)
    return f'<div class="lead">{cells}</div>' + (f"<p>{escape(note)}</p>" if note else "")


def _results(evaluation: "Evaluation") -> list[Table]:
    counts = dict.fromkeys((name for name, _ in _SIZES), 0)
    for record in evaluation.records:
        for area in record.area[~(record.iscrowd | record.difficult)].tolist():
            counts["small" if area <= 32**2 else "medium" if area <= 96**2 else "large"] += 1
    sizes = [
        (f"{name}, {what}", str(counts[name]), *(_figure_text(evaluation.metrics[f"{kind}{name}"]) for kind in _KINDS))
        for name, what in _SIZES
    ]
    classes = [
        (name, f"{row['objects']:.0f}", *(_figure_text(row[key]) for key in _MAIN))
        for name, row in evaluation.per_class.items()
    ]
    return [
        Table("Results by class", ("Class", "Objects", *_MAIN), classes),
        Table("Results by size", ("Objects", "Number", *_KINDS), sizes),
    ]


def _mistakes(evaluation: "Evaluation") -> list[Table]:
    """Return a table, in a list, of right and wrong detections by class.

    Scores and IoU are at least .5. The list is empty for a file of results, which has no confusion matrix.
    """
    if evaluation.confusion is None:
        return []
    rows = []
    for k, name in enumerate(evaluation.classes, start=1):
        of_objects, of_detections = evaluation.confusion[k], evaluation.confusion[:, k]
        objects, detections, found = int(of_objects.sum()), int(of_detections.sum()), int(of_objects[k])
        missed, nowhere = int(of_objects[0]), int(of_detections[0])
        shares = (found / whole if whole else math.nan for whole in (detections, objects))
        counts = (found, missed, objects - found - missed, nowhere)
        rows.append((name, str(objects), *map(_figure_text, shares), *map(str, counts)))
    counted = ("Found", "Missed", "As another class", "Where nothing is")
    return [Table(_FOUND, ("Class", "Objects", "Precision", "Recall", *counted), rows)]


def _run(story: Story) -> list[tuple[str, str]]:
    seconds, steps = _seconds(story.history), int(story.history[-1]["step"]) if story.history else 0
    rate = story.history[-1]["images_per_second"] if story.history else math.nan
    place = torch.cuda.get_device_name(story.device) if story.device.type == "cuda" else platform.machine()
    threads = torch.get_num_threads()
    return [
        ("Length", f"{number_of(len(story.history), 'epoch')}, {number_of(steps, 'step')}"),
        ("Time of the steps", _duration(seconds)),
        ("Speed at the end", f"{rate:.1f} images a second"),
        ("Device", f"{story.device}, {place}, {threads} thread{'s' * (threads > 1)}"),
        ("Versions", f"ssd_zoo {__version__}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
                     f"Python {platform.python_version()}"),
    ]  # fmt: skip


def _seconds(history: Sequence[Mapping[str, float]]) -> float:
    return sum(row["seconds"] for row in history)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _figure_text(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _curves(history: Sequence[Row]) -> dict[str, Lines]:
    columns = {"Loss": ("loss", "classification", "bbox_regression", "validation_loss"), "AP": _MAIN}
    charts = {
        title: {name: points for name in names if (points := [(r["epoch"], r[name]) for r in history if name in r])}
        for title, names in columns.items()
    }
    return {title: lines for title, lines in charts.items() if lines}


def _charts(charts: Mapping[str, Lines]) -> str:
    return "".join(
        f"<figure>{_caption(title)}{line_chart(lines, top=None if title == 'Loss' else 1.0)}</figure>"
        for title, lines in charts.items()
    )


def _confusion(confusion: Tensor, classes: Sequence[str]) -> str:
    """Return the confusion matrix as an HTML table, each cell as dark as its share of the row."""
    names = ["nothing", *classes]
    used = [k for k in range(len(names)) if confusion[k].any() or confusion[:, k].any()]
    head = "".join(f"<th>{escape(names[k])}</th>" for k in used)
    lines = []
    for row in used:
        whole = max(1, int(confusion[row].sum()))
        shares = [(count, count / whole) for count in confusion[row, used].tolist()]
        cells = "".join(
            f'<td style="background: rgb(37 99 175 / {share:.2f}); color: {"#fff" if share > 0.5 else "inherit"}">'
            f"{count or ''}</td>"
            for count, share in shares
        )
        lines.append(f"<tr><th>{escape(names[row])}</th>{cells}</tr>\n")
    table = f'<table class="confusion"><thead><tr><th></th>{head}</tr></thead><tbody>\n{"".join(lines)}</tbody></table>'
    note = "Confusion: objects of a class (rows) by the class that was found there (columns), with a score from .5."
    return f'<figure>{_caption(note)}<div class="wide">{table}</div></figure>'


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.jpeg).decode()
    caption = escape(picture.caption)
    return f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{data}">{_caption(picture.caption)}</figure>'


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in table.rows)
    top = f"<thead><tr>{head}</tr></thead>" if any(table.header) else ""
    kind = escape(table.title.lower())
    return _section(table.title, f'<div class="wide"><table class="{kind}">{top}<tbody>\n{rows}</tbody></table></div>')


_STYLE = """<style>
body { margin: 0; background: #f6f7f9; color: #1c2330; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.6rem; margin: 8px 0 16px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 10px; }
section, .lead { background: #fff; border: 1px solid #e1e4ea; border-radius: 8px; padding: 14px 16px;
  margin: 0 0 16px; }
.lead { display: flex; flex-wrap: wrap; gap: 12px 40px; color: #5a6372; font-size: .9rem; }
.lead b { display: block; color: #1c2330; font-size: 1.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: 4px 18px 4px 0; border-bottom: 1px solid #eceef2; }
th { color: #5a6372; font-weight: 600; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(45%, 320px), 1fr)); gap: 12px; }
.before { grid-template-columns: 1fr 1fr; max-width: 976px; }
figure { margin: 0; min-width: 0; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { color: #5a6372; font-size: .85rem; text-align: center; margin: 4px 0; overflow-wrap: anywhere; }
.confusion td { text-align: right; padding: 4px 10px; border: 1px solid #eceef2; min-width: 2em; }
svg { width: 100%; height: auto; display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 4px 0 0; padding: 0; list-style: none;
  font-size: .85rem; }
.legend i { display: inline-block; width: 14px; height: 3px; margin-right: 6px; vertical-align: middle; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 600px) {
  .choices thead { display: none; }
  .choices tr { display: grid; grid-template-columns: 8em 1fr; border-bottom: 1px solid #eceef2; }
  .choices td { border: 0; padding: 2px 8px 2px 0; }
  .choices td:nth-child(3) { grid-column: 2; color: #5a6372; }
}
</style>"""
