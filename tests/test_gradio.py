"""The demo with a server answers Gradio's own client."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import INSTALLED, ROOT

# Gradio's packages warn of each other.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

CALL = """
import json, sys
from gradio_client import Client, handle_file
client = Client(sys.argv[1], verbose=False)
answers = [client.predict(handle_file(sys.argv[2]), least, api_name="/detect") for least in (0.5, 0.9)]
print(json.dumps([table["data"] for picture, table in answers]))
"""


@pytest.fixture
def address():
    """The demo as it is started by hand, on a free port."""
    pytest.importorskip("gradio", reason="NO DEMO: pip install gradio")
    settings = {"GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1", "PYTHONPATH": INSTALLED}
    command = [sys.executable, "-u", ROOT / "examples" / "gradio_demo.py"]
    with subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True) as demo:
        try:
            yield next(filter(None, (re.search(r"http://\S+", line) for line in demo.stdout))).group()
        finally:
            demo.kill()


def test_the_demo_detects(address):
    command = [sys.executable, "-c", CALL, address, ROOT / "examples" / "coffee.jpg"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    [cup, table], [only] = json.loads(answer.splitlines()[-1])
    assert (cup[0], table[0]) == ("cup", "dining table")
    assert cup[1:] == pytest.approx([0.954, 174, 24, 416, 252], abs=0.01)
    assert only == cup
