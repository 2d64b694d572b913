"""Show a detector in a browser, with a server that computes.

    pip install gradio
    python examples/gradio_demo.py --model runs/cells/best

Without a server, the page "In your browser" of the docs runs exported detectors.
"""

import argparse
from pathlib import Path

import gradio

import ssd_zoo
from ssd_zoo.prediction import open_detector, pick_thresh

HERE = Path(__file__).parent


def build(name):
    """Return the demo of a model: a picture and the least score go in, a picture and a table come out."""
    model = open_detector(name)
    least = model.score_thresh
    usual = pick_thresh(model, None)

    def detect(photo, score_thresh):
        found = ssd_zoo.predict(model, photo, score_thresh)
        scores, boxes = found["scores"].tolist(), found["boxes"].round().tolist()
        rows = [[name, round(s, 3), *box] for name, s, box in zip(found.names, scores, boxes, strict=True)]
        return found.draw(), rows

    return gradio.Interface(
        detect,
        [gradio.Image(type="pil", label="photo"), gradio.Slider(least, 1, usual, label="least score")],
        [gradio.Image(label="detections"), gradio.Dataframe(headers=["class", "score", "x1", "y1", "x2", "y2"])],
        examples=[[str(HERE / name), usual] for name in ("coffee.jpg", "astronaut.jpg")],
        cache_examples=False,
        flagging_mode="never",
        title=f"ssd_zoo: {name}",
        api_name="detect",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ssdlite300_mobilenet_v2", help="anything that ssd_zoo.predict takes")
    parser.add_argument("--port", type=int, help="port of the server (default: the first free one from 7860)")
    arguments = parser.parse_args()
    build(arguments.model).launch(server_port=arguments.port)


if __name__ == "__main__":
    main()
