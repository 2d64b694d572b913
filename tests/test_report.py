"""The page of a run: what it tells, that it is whole and safe, and the same facts in the model card."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CHROMIUM
from labelled import colourful, make_coco
from train_tiny import CATEGORIES, build, train

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import open_dataset
from ssd_zoo.training import fit
from ssd_zoo.training.evaluate import _evaluation
from ssd_zoo.training.metrics.confusion import confusion_matrix, judge_record
from ssd_zoo.training.metrics.records import make_record
from ssd_zoo.training.mistakes import draw_mistake, worst_mistakes
from ssd_zoo.training.plan import Choice
from ssd_zoo.training.report import Picture, Story, Table, failure_of, tables_of, to_markdown, write_report

pytestmark = pytest.mark.usefixtures("one_thread")


VOID = {"meta", "img", "path", "circle", "polyline"}


class Page(HTMLParser):
    """The text of a page, the sources of its pictures, and the tags that stay open."""

    def __init__(self, text):
        super().__init__()
        self.words, self.sources, self.open, self.all = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.all.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


def page_of(file):
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not set(page.all) & {"script", "link", "iframe"}
    assert all(source.startswith("data:image/") for source in page.sources)
    assert len(text) < 3 * 2**20
    assert sum(source.startswith("data:image/jpeg") for source in page.sources) <= 24
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run by the command; a name holds what HTML and Markdown would take for their own."""
    folder = tmp_path_factory.mktemp("report")
    make_coco(folder / "data", "train", colourful(16)[:11])
    make_coco(folder / "data", "val", colourful(16)[11:])
    names = "cat,dog"
    output = folder / "<b>run & more"
    args = ["--size", "64", "--epochs", "2", "--batch-size", "4", "--device", "cpu", "--evaluate-every", "1"]
    args += ["--categories", names, "--no-tensorboard", "--quiet"]
    assert main(["train", str(folder / "data"), "--output", str(output), *args]) == 0
    return output


def test_a_run_is_told_on_one_page(run):
    page = page_of(run / "report.html")
    words = page.words
    assert "<b>run & more" in words, "names are text"
    assert {"Choices", "Results by class", "Results by size", "Curves", "Command to repeat", "Run"} <= set(words)
    for name in ("model", "input", "default boxes", "validation", "length", "batch size", "optimizer"):
        assert name in words, name
    assert {"cat", "dog", "AP", "AP50", "AP75", "AR"} <= set(words)
    assert {"small, up to 32² pixels", "Before and after the training", "before", "after"} <= set(words)
    assert any(word.startswith("ssd-zoo train ") and "--size 64" in word for word in words)
    assert any(f"torch {torch.__version__}" in word for word in words)
    assert page.all.count("svg") == 3, "losses, AP, precision over recall"
    assert page.all.count("table") == 6, "choices, classes, sizes, mistakes, confusion, run"
    assert page.words[page.words.index("training") + 1 :][:2] == ["split train", "11 images"]
    assert sum(source.startswith("data:image/jpeg") for source in page.sources) >= 6


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("width", [390, 1366])
def test_the_page_in_a_browser(run, width):
    """On a phone and on a screen: nothing fails, nothing is cut off, and each picture is shown."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="NO BROWSER TEST: pip install '.[dev]'")
    if CHROMIUM is None:
        pytest.skip("NO BROWSER TEST: there is no chromium")
    told = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("requestfailed", lambda request: told.append(request.url))
        page.goto((run / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        sizes = page.evaluate("[...document.images].map((image) => image.complete ? image.naturalWidth : 0)")
        beyond = page.evaluate(
            "[...document.querySelectorAll('img, svg, h1, h2, pre')].map((part) => part.getBoundingClientRect())"
            ".filter((box) => box.left < 0 || box.right > innerWidth || !box.width || !box.height).length"
        )
        browser.close()
    assert told == []
    assert len(sizes) >= 6
    assert min(sizes) > 0
    assert beyond == 0


def test_the_card_tells_the_same(run):
    card = (run / "best/README.md").read_text()
    mistakes = "### Found and missed, at scores from .5"
    for title in ("### Results by class", "### Results by size", mistakes, "### Choices", "### Run", "### Command"):
        assert title in card, title
    assert re.search(r"\| length \| 2 epochs, 6 steps \| given \|", card)
    assert re.search(r"\| cat \| \d+ \| [\d.]+ \|", card)
    assert "| training | split train | 11 images |" in card
    assert "| validation | split val | 5 images |" in card
    assert "```sh\nssd-zoo train " in card


def test_a_run_without_validation(tmp_path):
    data = make_coco(tmp_path / "data", "train", colourful(4))
    fit(build(), open_dataset(data), output=tmp_path / "run", epochs=1, batch_size=4,
        tensorboard=False, progress=False, device="cpu")  # fmt: skip
    page = page_of(tmp_path / "run/report.html")
    assert "There are no validation data, so AP was not measured." in page.words
    assert "Results by class" not in page.words
    assert "Command to repeat" not in page.words


def test_clips(tmp_path):
    train(tmp_path / "run", tmp_path, of_clips=True, epochs=1, batch_size=2, choices=[Choice("a", "<i>", "x|y")])
    page = page_of(tmp_path / "run/report.html")
    assert "<i>" in page.words
    assert sum(source.startswith("data:image/jpeg") for source in page.sources) >= 6
    assert r"| a | <i> | x\|y |" in (tmp_path / "run/best/README.md").read_text()


@pytest.mark.parametrize(
    ("ap", "found", "steps", "told"),
    [
        (0.0, 1, 6, "AP is 0.000, after 6 steps. That is too few: train 300 or more"),
        (0.009, 1, 900, "AP is 0.009, after 900 steps. The loss should fall"),
        (0.4, 0, 6, "no object at scores from .5. Its AP is 0.400, after 6 steps. Detect with a lower --score-thresh"),
        (0.01, 1, 6, None),
        (float("nan"), 0, 6, None),
    ],
)
def test_a_model_that_finds_nothing(ap, found, steps, told):
    # Rows are objects: one of two is missed, and one detection lies where nothing is.
    evaluation = SimpleNamespace(metrics={"AP": ap}, confusion=torch.tensor([[0, 1], [2 - found, found]]))
    failure = failure_of(Story("run", [], None, [{"step": steps}], torch.device("cpu"), evaluation))
    assert (failure is None) == (told is None)
    assert told is None or told in failure


def test_the_command_to_repeat_a_resumed_run(tmp_path, monkeypatch):
    make_coco(tmp_path / "data", "train", colourful(4))
    told = []
    monkeypatch.setattr(
        "ssd_zoo.cli.train.fit", lambda *_, command, **__: told.append(command) or pytest.fail("begins")
    )
    options = [
        "--output",
        "a run",
        "--weights",
        "scratch",
        "--size",
        "64",
        "--no-fit-default-boxes",
        "--no-tensorboard",
    ]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pytest.fail.Exception, match="begins"):
        main(["train", "data", "--resume", *options])
    assert told == [f"ssd-zoo train data --output 'a run' {' '.join(options[2:])}"]


def test_a_resumed_run_measures_its_best_model(tmp_path, caplog):
    result = train(tmp_path / "run", tmp_path, epochs=1)
    assert result.best < 0.01, "after three steps"
    failure = "The model finds next to nothing: its AP is 0.00"
    assert failure in caplog.text
    assert failure in (tmp_path / "run/best/README.md").read_text()
    assert any(failure in words for words in page_of(tmp_path / "run/report.html").words)
    first = (tmp_path / "run/report.html").read_text()
    (tmp_path / "run/report.html").unlink()
    train(tmp_path / "run", tmp_path, epochs=1, resume=True)
    again = (tmp_path / "run/report.html").read_text()

    def tables(text):
        return re.findall(r"<td>(.*?)</td>", text)[:20]

    assert tables(again) == tables(first)
    assert "before" in Page(again).words


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    story = Story("run", [], None, [], torch.device("cpu"), None)
    file = tmp_path / "report.html"
    write_report(file, story, [Picture("A & B", "<c>", b"jpeg")])
    before = file.read_text()
    assert {"A & B", "<c>"} <= set(Page(before).words)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_report(file, story, [])
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def test_markdown():
    table = Table("T", ("a", "b"), [("1", "x|y")])
    assert to_markdown([table], "run --it") == (
        "### T\n\n| a | b |\n| --- | --- |\n| 1 | x\\|y |\n\n### Command\n\n```sh\nrun --it\n```"
    )


def record(boxes, labels, found, number=0):
    target = {"boxes": torch.tensor(boxes).reshape(-1, 4).float(), "labels": torch.tensor(labels, dtype=torch.int64)}
    rows = {
        "boxes": torch.tensor([row[:4] for row in found]).reshape(-1, 4).float(),
        "labels": torch.tensor([row[4] for row in found], dtype=torch.int64),
        "scores": torch.tensor([row[5] for row in found]).float(),
    }
    return make_record(target, rows, None, number)


RECORDS = [
    # A cat that is found; a dog that is taken for a cat; a cat that is found twice; something in a corner.
    record(
        [(0, 0, 10, 10), (20, 0, 30, 10)],
        [1, 2],
        [(0, 0, 10, 10, 1, 0.9), (20, 0, 30, 10, 1, 0.8), (0, 1, 10, 10, 1, 0.7), (50, 50, 60, 60, 2, 0.95)],
    ),
    # A small and a large object that are missed; a detection that is not sure.
    record([(0, 0, 5, 5), (20, 20, 60, 60)], [1, 2], [(20, 20, 60, 60, 2, 0.4)]),
    record([], [], [(0, 0, 9, 9, 1, 0.6)]),
]


def test_worst_mistakes():
    told = [(mistake.kind, mistake.record, mistake.text) for mistake in worst_mistakes(RECORDS, CATEGORIES)]
    assert told == [
        ("missed", 1, "dog was not found"),
        ("missed", 1, "cat was not found"),
        ("wrong class", 0, "cat 0.80, labelled dog"),
        ("background", 0, "dog 0.95, where nothing is labelled"),
        ("background", 0, "cat 0.70, that another detection has found already"),
        ("background", 2, "cat 0.60, where nothing is labelled"),
    ]
    assert len(worst_mistakes(RECORDS, CATEGORIES, most=1)) == 3


def test_mistakes_are_counted_by_class():
    """Of the matrix above: two cats, one found and one missed; the dogs are missed, and taken for a cat."""
    story = Story("run", [], None, [], torch.device("cpu"), _evaluation(RECORDS, CATEGORIES, {1, 2}))
    [table] = [table for table in tables_of(story) if "Precision" in table.header]
    assert table.rows == [
        ("cat", "2", "0.250", "0.500", "1", "1", "0", "2"),
        ("dog", "2", "0.000", "0.000", "0", "1", "1", "1"),
    ]


def test_boxes_that_can_not_be_drawn_are_no_mistakes():
    odd = [(9, 9, 1, 1), (0, 0, float("nan"), 5), (0, 0, float("inf"), 5)]
    assert worst_mistakes([record(odd, [1, 1, 1], [])], CATEGORIES) == []


class Own:
    """A data set of the caller, with a list that has the name of ours."""

    categories = CATEGORIES

    def __init__(self):
        self.images = [torch.zeros(3, 64, 64), torch.ones(3, 64, 64)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}


def test_data_sets_of_the_caller(tmp_path):
    model = build()
    model.score_thresh = 0.9
    options = {"epochs": 1, "batch_size": 2, "tensorboard": False, "progress": False, "device": "cpu"}
    fit(model, Own(), validation=Own(), output=tmp_path / "run", **options)
    assert "cat was not found; image 0" in page_of(tmp_path / "run/report.html").words


def test_mistakes_are_those_of_the_confusion_matrix():
    matrix = confusion_matrix(RECORDS, 3)
    assert matrix.tolist() == [[0, 2, 1], [1, 1, 0], [1, 1, 0]]
    wrong = matrix.sum() - matrix.diagonal()[1:].sum()
    assert len(worst_mistakes(RECORDS, CATEGORIES)) == wrong
    judged = judge_record(RECORDS[0])
    assert judged.found == [(3, -1), (0, 0), (1, 1), (2, -1)]
    assert judged.missed == []


def test_a_mistake_is_drawn_with_what_is_around_it():
    [mistake] = worst_mistakes([record([(10, 20, 40, 30)], [1], [])], CATEGORIES)
    image = torch.zeros(3, 100, 200)
    picture = draw_mistake(image, mistake, CATEGORIES, side=96)
    # The box and 48 pixels on each side of its middle, (25, 25), as far as the image reaches: x 0 to 96, y 0 to 96.
    assert picture.size == (96, 96)
    pixels = torch.from_numpy(np.asarray(picture).astype(int)).sum(-1)
    assert (pixels[20, 12:38] > 0).all(), "the box's upper line"
    assert pixels[60:, 60:].sum() == 0
    grey = draw_mistake(image[:1], mistake, CATEGORIES)
    assert grey.mode == "RGB"


def test_names_of_files_may_be_odd(tmp_path):
    story = Story("a\udcff", [Choice("n", "v", "r")], "x", [], torch.device("cpu"), None)
    write_report(tmp_path / "report.html", story, [])
    assert "a\\udcff" in (tmp_path / "report.html").read_text()
    assert ssd_zoo.__version__ in (tmp_path / "report.html").read_text()
